"""The emitted GraphModules: code that is written when somebody wants it, and is that of the graph which is then set."""

import gc
import inspect

import pytest
import torch
from torch import nn

import fxprune


class Net(nn.Module):
    """Two graphs: dropout by hand, in training only."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, image):
        hidden = self.conv(image).relu()
        return self.head(hidden * 2 if self.training else hidden)


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.randn(2, 3, 8, 8)


@pytest.fixture
def small(image):
    return fxprune.compress(Net().eval(), image, channels=0.5, verify=False)


def written(module):
    return "_code" in vars(module)


def test_nobody_asked(small):
    assert not written(small)


@pytest.mark.parametrize("ask", [
    lambda small: small.code, str, lambda small: small.forward, lambda small: type(small).forward,
    lambda small: small.__call__, lambda small: small(torch.zeros(1, 3, 8, 8)),
], ids=["code", "str", "forward", "forward of the class", "call", "called"])
def test_whoever_asks_has_it_written(small, ask):
    ask(small)
    assert written(small)
    assert list(inspect.signature(small.forward).parameters) == ["image"]
    assert "def forward(self, image" in small.code


def test_each_mode_has_its_own_code(small, image):
    evaluated, code = small(image), small.code
    assert small.train().code != code
    assert not torch.equal(small(image), evaluated)
    assert small.eval().code == code
    assert torch.equal(small(image), evaluated)


def test_an_edited_graph_is_written_again(small, image):
    before = small(image)
    output = next(node for node in small.graph.nodes if node.op == "output")
    with small.graph.inserting_before(output):
        output.args = (small.graph.call_method("neg", output.args),)
    assert torch.equal(small(image), before)
    small.recompile()
    assert torch.equal(small(image), -before)


def test_a_missing_attribute_is_still_missing(small):
    with pytest.raises(AttributeError, match="nowhere"):
        small.nowhere  # noqa: B018


def test_the_class_of_a_module_that_is_gone(image):
    small = fxprune.compress(Net().eval(), image, channels=0.5, verify=False)
    kind = type(small)
    del small
    gc.collect()
    with pytest.raises(AttributeError, match="gone"):
        kind.forward  # noqa: B018
