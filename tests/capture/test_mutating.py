"""Operators that return nothing and write: their schema says into what."""

import copy

import pytest
import reference
import torch
from torch import nn

import fxprune


@torch.library.custom_op("fxprune_tests::shrink_", mutates_args=("x",))
def shrink_(scale: float, x: torch.Tensor) -> None:
    x.mul_(scale)


@shrink_.register_fake
def _(scale, x):
    return None


class Writing(nn.Module):
    """What is written is read later; what nobody reads again is dead."""

    def __init__(self, write):
        super().__init__()
        self.a, self.b, self.c, self.write = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2), write

    def forward(self, x):
        y, unused = self.a(x).relu(), self.a(x)
        self.write(y)
        self.write(unused)
        return self.c(self.b(y).relu())


WRITES = {
    "_foreach_mul_": lambda y: torch._foreach_mul_([y], 3.0),
    "_foreach_copy_": lambda y: torch._foreach_copy_([y], [y * 2]),
    "shrink_": lambda y: torch.ops.fxprune_tests.shrink_(0.25, x=y),
}


@pytest.mark.parametrize("name", WRITES)
def test_the_write_stays_and_freezes_by_name(name):
    model, x = Writing(WRITES[name]), torch.randn(3, 6)
    coupling = fxprune.analyze(model, x)
    assert coupling.mode == "graph", coupling.why
    assert list(coupling.prunable) == ["b"] and name in str(coupling.groups["a"].frozen)
    small = fxprune.compress(model, x, channels=0.5)
    assert [name in str(node.target) for node in small.graph.nodes].count(True) == 1
    kept = fxprune.record(small).plan.keep
    full = copy.deepcopy(model)
    with torch.no_grad():
        gone = [k for k in range(8) if k not in kept["b.weight"][0]]
        full.b.weight[gone], full.b.bias[gone] = 0, 0
    x = torch.randn(5, 6)
    reference.assert_close(small(x), full(x), name)
