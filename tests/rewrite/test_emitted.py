"""The emitted GraphModules: the code is that of the graph which is set."""

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


def test_the_code_is_there(small):
    assert list(inspect.signature(type(small).forward).parameters) == ["self", "image"]
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
