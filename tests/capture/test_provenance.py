"""Numbers in a graph say which attributes they are made of."""

import operator
from enum import Enum
from types import SimpleNamespace

import torch
from torch import nn

from fxprune.capture.capturing import capture
from fxprune.capture.provenance import attributed
from fxprune.capture.sizes import Apply, Attribute, Dim, Size


class Kind(str, Enum):
    WIDE = "wide"


class Single:
    """There is one, and copies are it."""

    def __init__(self):
        self.count = 7

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


class Net(nn.Module):
    groups = 2

    def __init__(self):
        super().__init__()
        self.lin, self.parts = nn.Linear(8, 12), (4, 8)
        self.shared = SimpleNamespace(inner={"heads": 3}, name="x")
        self.kind, self.single = Kind.WIDE, Single()

    def forward(self, x):
        x.sum()  # dead
        a, b = self.lin(x).split(self.parts, -1)
        a = a.view(x.shape[0], self.groups, -1)
        return a.sum() + b.view(-1, self.shared.inner["heads"] + 5, 1).sum()


class Strict(Net):
    """Its configuration does not bear integers of another class."""

    def forward(self, x):
        assert type(self.shared.inner["heads"]) is int
        return super().forward(x)


def expressions(model):
    x = torch.randn(3, 8)
    captured = capture(model, x)
    found = attributed(model, captured, torch.device("cpu"))["eval"]
    return {(found.outline.nodes[k].target, path): expression
            for (k, path), expression in found.outline.expressions.items()}, found


def test_addresses_of_attributes():
    model = Net()
    found, run = expressions(model)
    assert found["split", (0, 1, 0)] == Attribute("", ("parts", 0), 4)
    assert found["split", (0, 1, 1)] == Attribute("", ("parts", 1), 8)
    assert found["view", (0, 2)] == Apply(operator.add, (Attribute("", ("shared", "inner", "heads"), 3), 5)) or \
        found["view", (0, 2)] == Attribute("", ("groups",), 2)
    assert Dim in {type(expression) for expression in found.values()}
    assert str(Attribute("a.b", ("shared", "inner", 0), 3)) == "a.b.shared.inner[0]"
    # The dead call stands in the run, and not among those of the graph.
    assert len(run.positions) == len(run.outline.nodes) - 1 and not run.failed
    # Nothing of the model was touched, nor what its copies share with it.
    assert type(model.single.count) is int and \
        all(type(n) is not Size for n in vars(Kind.WIDE).values())
    assert type(model.parts[0]) is int and "groups" not in vars(model) and type(model.shared.inner["heads"]) is int


def test_what_does_not_bear_it_is_left_out():
    found, run = expressions(Strict())
    held = {name for expression in found.values() for name in [str(expression)]}
    assert "model.parts[0]" in held and not any("shared" in name for name in held) and not run.failed
