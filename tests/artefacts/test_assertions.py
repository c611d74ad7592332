"""Constants of a graph, as statements of ``model.py``."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.artefacts.assertions import assertions
from fxprune.capture.constant_arguments import pattern


def held(want, value, left_out=False):
    """Run the statements for an argument ``x`` of that value."""
    exec("\n".join(assertions("x", "x", want, left_out)), {"x": value, "torch": torch})


@pytest.mark.parametrize(("was", "other"), [
    (2.0, 2), (None, 0), (False, 0), ("a", "b"), (torch.ones(1), 1.0), ((), (1,)), ({}, {"a": 1}), ([1, None], [1, 2]),
    ([1], [1, 2]), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), (float("nan"), 1.0), (torch.float32, torch.float64),
], ids=repr)
def test_what_was_captured_passes_and_another_does_not(was, other):
    held(pattern(was), was)
    with pytest.raises(ValueError, match="^captured with"):
        held(pattern(was), other)


def test_what_was_left_out_is_called_so():
    with pytest.raises(ValueError, match="captured without x; leave it out"):
        held(2.0, 3.0, left_out=True)


def test_objects_are_no_source():
    with pytest.raises(fxprune.UnsupportedError, match="cannot ask whether x is a builtins.range"):
        held(pattern(range(2)), range(2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x, /, scale=1.0, *, mask=None, shift):
        y = self.b(self.a(x).relu()) * scale + shift
        return nn.functional.dropout(y, 0.1) if self.training else y


def test_source_and_program_take_what_the_result_takes(tmp_path):
    torch.manual_seed(0)
    x, shift = torch.randn(2, 4), torch.zeros(2, 2)

    class Named(Net):
        def forward(self, x, scale=1.0, *, mask=None, shift):
            return super().forward(x, scale, mask=mask, shift=shift)

    small = fxprune.compress(Named().eval(), {"shift": shift, "scale": 2.0, "x": x}, channels=0.5)
    saved = fxprune.save(small, tmp_path / "out")
    assert {"model.py", "model.pt2"} <= set(saved.files)
    source = (tmp_path / "out" / "model.py").read_text()
    assert "def forward(self, x, scale=1.0, *, mask=None, shift):" in source
    assert "pass scale=2.0" in source and "captured without mask; leave it out" in source
    program = fxprune.load(tmp_path / "out", trust=True)
    torch.testing.assert_close(program(x=x, scale=2.0, shift=shift), small(x, 2.0, shift=shift))
