"""A batch that is merged with heads follows the inputs, and not only the weights."""

import pytest
import reference
import torch
from torch import nn

import fxprune


class Merged(nn.Module):
    """Attention with batch and heads in one dimension, which is asked for; its length is used as a number, too."""

    def __init__(self, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.out = nn.Linear(16, 3)

    def split(self, x):
        b, n, c = x.shape
        return x.view(b, n, self.heads, c // self.heads).transpose(1, 2).reshape(b * self.heads, n, c // self.heads)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        weights = torch.bmm(q, k.transpose(1, 2)) / q.shape[0]
        if weights.size() != (b * self.heads, n, n):
            raise ValueError("no such weights")
        y = torch.bmm(weights.softmax(-1), v)
        if y.size() != (b * self.heads, n, c // self.heads):
            raise ValueError("no such values")
        return self.out(self.o(y.view(b, self.heads, n, -1).transpose(1, 2).reshape(b, n, c)))


@pytest.mark.parametrize("heads", ["whole", "dims"])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_batch_and_any_length(batch, heads):
    torch.manual_seed(0)
    model = Merged().eval()
    small = fxprune.compress(model, torch.randn(batch, 6, 16), channels=0.5, policy=fxprune.Policy(heads=heads))
    assert small.q.out_features == 8 and small.o.in_features == 8
    masked = reference.duplicate(model)
    reference.zeroed(masked, fxprune.record(small).plan.keep, {})
    for shape in ((batch, 6, 16), (5, 6, 16), (3, 9, 16)):
        x = torch.randn(shape)
        reference.assert_close(small(x), masked(x), str(shape))
