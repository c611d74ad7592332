"""Which contractions a run has, and what stands behind them."""

import torch
import torch.nn.functional as F
from torch import nn

from fxprune.capture import multihead
from fxprune.capture.contractions import weighted


def found(model: nn.Module, *inputs: torch.Tensor):
    with multihead.written_out():
        return weighted(model.eval(), (inputs, {}))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.scale = nn.BatchNorm2d(4), nn.Parameter(torch.ones(4, 1, 1))
        self.late = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.scale * F.dropout(self.norm(self.conv(x)), 0.5, self.training) + self.late(x.relu())


def test_chain_and_sum():
    stem, conv, late = found(Block(), torch.randn(1, 3, 5, 5)).contractions
    assert (stem.bias, stem.norm, stem.other) == ("stem.bias", None, None)  # read twice: no chain
    assert conv.norm.var == "norm.running_var" and conv.scales == ("scale",) and conv.bias is None
    # Each is the other's summand; the late one is not there yet when the first runs.
    assert conv.other == late.number and late.other < late.number and late.norm is None


def test_slices_of_a_packed_projection():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x, y):
            return self.attention(x, y, y, need_weights=False)[0]

    contractions = found(Cross(), torch.randn(1, 3, 8), torch.randn(1, 4, 8)).contractions
    assert [(c.name, c.use, c.view[0], c.view[2]) for c in contractions[:3]] == [
        ("attention.in_proj_weight", k, (8, 8), 64 * k) for k in range(3)]
    assert contractions[3].name == "attention.out_proj.weight"


def test_norms_in_training_mode_are_none():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert found(model, torch.randn(2, 3, 4, 4)).norms == ()


def test_computed_weights_are_none():
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return F.linear(x, self.weight * 2) + F.linear(x, self.weight.T.contiguous().T)

    assert [c.name for c in found(Computed(), torch.randn(2, 3)).contractions] == []


def test_a_transposed_parameter_is_still_the_parameter():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return x @ self.weight.t()

    (one,) = found(Transposed(), torch.randn(2, 3)).contractions
    assert one.name == "weight" and one.view[:2] == ((3, 4), (1, 3))
