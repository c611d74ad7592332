"""What capture took for granted is asserted by the result, as the value that it was."""

import pytest
import torch
from torch import nn

import fxprune

FACTORS = {6: 1.0, 8: 2.0}


class Looked(nn.Module):
    """Python needs the number itself: a size is looked up in a table."""

    def __init__(self, number):
        super().__init__()
        self.a, self.b, self.number = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), number

    def forward(self, x):
        return self.b(self.a(x).relu() * FACTORS[self.number(x.shape[2])])


@pytest.mark.parametrize("number", [lambda n: n, int], ids=["a size", "an int of it"])
def test_a_number_is_held_to_its_value_not_to_its_truth(number):
    small = fxprune.compress(Looked(number), torch.randn(2, 3, 6, 4), channels=0.5)
    assert small(torch.randn(5, 3, 6, 9)).shape == (5, 4, 6, 9)
    with pytest.raises(AssertionError, match="captured with x of size 6 in dimension 2, .*again for inputs of this"):
        small(torch.randn(2, 3, 8, 4))


class Equal(nn.Module):
    """Its own nodes are called as those of an assertion would be."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.b(self.a(x).relu()) * FACTORS[x.shape[0]]
        return torch.where(torch.eq(y, 1.0), y, -y)


def test_an_assertion_takes_no_node_s_name():
    small = fxprune.compress(Equal(), torch.randn(6, 4), channels=0.5)
    assert next(node for node in small.graph.nodes if node.name == "eq").target is torch.eq
