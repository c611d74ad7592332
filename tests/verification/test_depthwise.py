"""Depthwise convolutions in double precision give what torch gives."""

import pytest
import torch

from fxprune.verification.depthwise import convolve


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "kernel"), [(1, 1, 1, 3), (2, 2, 1, 5), (3, 0, 2, 2),
                                                                     (1, 3, 3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_as_torch(rank, stride, padding, dilation, kernel, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, *[9] * rank).double(), torch.randn(6, 1, *[kernel] * rank).double()
    args = (x, weight, torch.randn(6).double() if bias else None, [stride] * rank, [padding] * rank, [dilation] * rank,
            6)
    operator = getattr(torch.ops.aten, f"conv{rank}d").default
    calls = []
    out = convolve(lambda *args: calls.append(1) or operator(*args), args, {})
    assert not calls and torch.allclose(out, operator(*args), rtol=1e-12)


@pytest.mark.parametrize("lengths", [(1, 2), (2, 1), (3, 7)])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 2, 1), (2, 2, 1), (1, 4, 2), (3, 5, 2)])
def test_places_that_lie_in_the_padding_alone(lengths, stride, padding, dilation):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, *lengths).double(), torch.randn(6, 1, 5, 5).double()
    args = (x, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, 6)
    operator = torch.ops.aten.conv2d.default
    assert torch.allclose(convolve(operator, args, {}), operator(*args), rtol=1e-12)


def args(channels=6, groups=6, into=1, dtype=torch.float64, size=9):
    return (torch.randn(2, channels, size, size, dtype=dtype), torch.randn(6, into, 3, 3, dtype=dtype), None, [1, 1],
            [0, 0], [1, 1], groups)


@pytest.mark.parametrize("given", [args(dtype=torch.float32), args(groups=3, into=2), args(groups=1, into=6),
                                   args(channels=3, groups=3), args(size=2)],
                         ids=["single precision", "groups", "dense", "two filters a channel", "nothing left"])
def test_all_else_is_left_to_torch(given):
    class Asked(Exception):
        pass

    def operator(*args):
        raise Asked

    with pytest.raises(Asked):
        convolve(operator, given, {})
