"""The quick results agree with torch's own meta kernels, and leave to them what does not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxprune.capture.quick_shapes import LIKE_FIRST, quick

aten = torch.ops.aten
sizes = st.integers(1, 4)
unhurried = settings(deadline=None)  # torch's first meta kernel imports a library


def empty(*shape, **kwargs):
    return torch.empty(shape, device="meta", **kwargs)


def same(ours, theirs):
    assert (ours.shape, ours.stride(), ours.dtype, ours.device) == \
        (theirs.shape, theirs.stride(), theirs.dtype, theirs.device)


@unhurried
@given(st.lists(sizes, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_broadcasting(shape, single):
    a, b = empty(*shape), empty(*[1 if one else n for n, one in zip(shape, single, strict=False)])
    for x, y in ((a, b), (b, a)):
        same(quick("aten::mul", (x, y), {}), aten.mul.Tensor(x, y))
        same(quick("aten::add", (x, 2.0), {}), aten.add.Tensor(x, 2.0))


@unhurried
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.booleans())
def test_convolutions(spatial, kernel, stride, padding, dilation, spread):
    x, weight = empty(2, 4, *range(9, 9 + spatial)), empty(6, 2, *[kernel] * spatial)
    numbers = [[n] * spatial if spread else [n] for n in (stride, padding, dilation)]
    args = (x, weight, None, *numbers, 2)
    same(quick(f"aten::conv{spatial}d", args, {}), getattr(aten, f"conv{spatial}d")(*args))


@unhurried
@given(st.lists(sizes, min_size=1, max_size=3), sizes, st.booleans())
def test_linear(shape, out, bias):
    args = (empty(*shape, 3), empty(out, 3), empty(out) if bias else None)
    same(quick("aten::linear", args, {}), aten.linear(*args))


@unhurried
@given(st.integers(1, 2), st.lists(sizes, min_size=2, max_size=2))
def test_adaptive_pools(spatial, out):
    args = (empty(2, 4, *range(7, 7 + spatial)), out[:spatial])
    same(quick(f"aten::adaptive_avg_pool{spatial}d", args, {}), getattr(aten, f"adaptive_avg_pool{spatial}d")(*args))


@pytest.mark.parametrize("name", sorted(LIKE_FIRST))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last, None], ids=str)
def test_operators_that_give_a_tensor_like_their_first(name, layout):
    x = empty(2, 4, 4, 4) if layout else empty(2, 4, 4, 4).transpose(1, 3)
    x = x.contiguous(memory_format=layout) if layout else x
    more = {"batch_norm": (None, None, None, None, True, 0.1, 1e-5, True), "layer_norm": ([4],), "rms_norm": ([4],),
            "group_norm": (2,), "instance_norm": (None, None, None, None, True, 0.1, 1e-5, True)}
    ours, theirs = quick(name, (x,), {}), getattr(aten, name[6:])(x, *more.get(name[6:], ()))
    assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device) and ours is not x
    assert quick(name + "_", (x,), {}) is x
    assert quick(name, (empty(2, 4, dtype=torch.int64),), {}) is None


@pytest.mark.parametrize("name, args", [
    ("aten::linear", (empty(2, 4), empty(5, 3), None)),
    ("aten::linear", (empty(3), empty(5, 3), None)),
    ("aten::linear", (empty(2, 3), empty(5, 3), empty(4))),
    ("aten::adaptive_avg_pool2d", (empty(3, 8, 8), [1, 1])),
    ("aten::mul", (2.0, empty(3))),
    ("aten::mul", (empty(2, 3), empty(3))),
    ("aten::mul", (empty(2, 3), empty(2, 2))),
    ("aten::add", (empty(2, 3), empty(2, 3, dtype=torch.float64))),
    ("aten::add", (empty(2, 3).t(), empty(3, 2))),
    ("aten::add", (empty(2, dtype=torch.int64), 2)),
    ("aten::add", (empty(2), 2j)),
    ("aten::conv2d", (empty(1, 5, 8, 8), empty(6, 3, 3, 3))),
    ("aten::conv2d", (empty(1, 3, 2, 8), empty(6, 3, 3, 3))),
    ("aten::conv2d", (empty(3, 8, 8), empty(6, 3, 3, 3))),
    ("aten::roll", (empty(3), [1])),
])
def test_what_does_not_fit_is_left_to_the_kernel(name, args):
    assert quick(name, args, {}) is None


def test_keywords_are_left_to_the_kernel():
    assert quick("aten::add", (empty(2), empty(2)), {"alpha": 2}) is None
