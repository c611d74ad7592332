"""Slices are the kept indices in their order, whatever the size and the layout; nothing is shared."""

import pytest
import torch
from torch import nn

from fxprune.rewrite.slicing import LARGE, sliced, sliced_like


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (1 + LARGE // 512, 512), (300, 128, 3, 3)])
@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1), (1, 0)])
def test_kept_indices_in_their_order(shape, dims):
    tensor = torch.randn(shape)
    keep = {dim: tuple(torch.randperm(shape[dim])[:(shape[dim] + 1) // 2].tolist()) for dim in dims}
    expected = tensor
    for dim, indices in keep.items():
        expected = expected.index_select(dim, torch.tensor(indices))
    assert torch.equal(sliced(tensor, keep), expected)


def test_layout_kind_and_storage():
    weight = nn.Parameter(torch.randn(64, 320, 8, 8).contiguous(memory_format=torch.channels_last), requires_grad=False)
    small = sliced_like(weight, {0: (3, 1), 1: tuple(range(9))})
    assert isinstance(small, nn.Parameter) and not small.requires_grad
    assert small.is_contiguous(memory_format=torch.channels_last)
    whole = sliced(weight, {})
    assert torch.equal(whole, weight) and whole.data_ptr() != weight.data_ptr()
