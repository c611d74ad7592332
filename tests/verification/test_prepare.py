"""Both sides run on the same random weights, so that nothing is zero, or one, by accident."""

import copy

import pytest
import torch
from torch import nn

import fxprune
from fxprune import VerificationError
from fxprune.verification.arithmetic import Arithmetic
from fxprune.verification.prepare import laid_out, pair


class Untrained(nn.Module):
    """As networks begin: the branch's last scale is zero, so that in its own weights nothing of it is seen."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.gamma = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        y = self.stem(x)
        return self.head(y + self.gamma * self.branch(y).relu())


@pytest.fixture
def compressed():
    torch.manual_seed(0)
    model = Untrained()
    small = fxprune.compress(model, torch.randn(4, 3), channels=0.5)
    return model, small, fxprune.record(small).plan


def test_what_the_models_own_weights_hide_is_seen(compressed):
    model, small, plan = compressed
    damaged = copy.deepcopy(small)
    relu = next(node for node in damaged.graph.nodes if node.target == "relu")
    relu.replace_all_uses_with(relu.args[0])
    damaged.graph.erase_node(relu)
    damaged.recompile()
    x = torch.randn(4, 3)
    assert torch.equal(damaged(x), small(x))
    with pytest.raises(VerificationError):
        fxprune.verify(model, damaged, plan)


def test_both_sides_hold_the_same_random_weights_and_the_plan_in_zeros(compressed):
    model, small, plan = compressed
    full, pruned = pair(model, small, plan.keep, Arithmetic(torch.float64), seed=0)
    kept = list(plan.keep["gamma"][0])
    gone = sorted(set(range(8)) - set(kept))
    assert full.gamma[kept].ne(0).all() and not full.gamma[gone].any()
    assert not full.branch.weight[gone].any() and not full.branch.weight[:, gone].any()
    assert torch.equal(full.gamma[kept], pruned.gamma)
    assert torch.equal(full.branch.weight[kept][:, kept], pruned.branch.weight)
    assert not torch.equal(full.head.bias, model.head.bias.double()) and torch.equal(full.head.bias, pruned.head.bias)
    assert model.gamma.eq(0).all()
    other, _ = pair(model, small, plan.keep, Arithmetic(torch.float64), seed=1)
    assert not torch.equal(other.head.bias, full.head.bias)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(8, 4, dtype=torch.complex64))
        self.b = nn.Linear(8, 2)

    def forward(self, x):
        return self.b((x.to(torch.complex64) @ self.a.T).abs())


def test_complex_weights_stay_complex_and_are_random_like_the_others():
    model = Complex()
    small = fxprune.compress(model, torch.randn(3, 4), channels=0.5)
    proof = fxprune.record(small).verification
    assert small.a.shape == (4, 4) and proof.dtype == "float64" and proof.max_error < 1e-12
    full, _ = pair(model, small, fxprune.record(small).plan.keep, Arithmetic(torch.float64), seed=0)
    assert full.a.dtype is torch.complex128 and not torch.equal(full.a.real, model.a.real.double())
    stored, _ = pair(model, small, fxprune.record(small).plan.keep, Arithmetic(torch.float64, stored=True), seed=0)
    assert stored.a.dtype is torch.complex64 and stored.b.weight.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64, torch.complex128, torch.bool])
@pytest.mark.parametrize("keep", [{0: (1,)}, {1: (2, 0)}, {0: (0, 2), 2: (1,)}, {1: ()}, {}], ids=str)
def test_a_part_is_laid_out_among_zeros_bit_for_bit(dtype, keep):
    shape = [len(keep.get(dim, range(length))) for dim, length in enumerate((3, 4, 2))]
    part = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    full = laid_out(part, (3, 4, 2), keep)
    wide = full.to(torch.complex128)
    for dim, indices in keep.items():
        wide = wide.index_select(dim, torch.tensor(indices, dtype=torch.long))
    assert torch.equal(wide, part.to(torch.complex128)) and full.dtype is dtype
    assert torch.count_nonzero(full.to(torch.complex128)) == torch.count_nonzero(part.to(torch.complex128))


def test_weights_keep_their_memory_format():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    small = fxprune.compress(model, torch.randn(2, 3, 8, 8), channels=0.5)
    both = pair(model, small, fxprune.record(small).plan.keep, Arithmetic(torch.float64), seed=0)
    weights = [module.get_submodule("2").weight for module in (*both, small)]
    assert [tuple(weight.shape) for weight in weights] == [(4, 8, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
