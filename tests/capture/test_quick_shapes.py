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
@given(st.lists(sizes, max_size=4), st.integers(0, 4), st.permutations(range(4)), st.integers(0, 3),
       st.sampled_from(["add", "sub", "mul", "div"]))
def test_arithmetic_in_other_layouts(shape, rank, order, kept, name):
    """Whatever is not left to the kernel is laid out as the kernel does."""
    order = [dim for dim in order if dim < len(shape)]
    x = empty(*(shape[dim] for dim in order)).permute([order.index(dim) for dim in range(len(shape))])
    factor = empty(*[n if dim == kept else 1 for dim, n in enumerate(x.shape)][len(shape) - min(rank, len(shape)):])
    for args in ((x, factor), (factor, x), (x, x), (x, x.contiguous()), (x, 2.0)):
        ours, theirs = quick(f"aten::{name}", args, {}), getattr(aten, name)(*args)
        if ours is not None:
            lengths = [(n, n > 1 and step) for n, step in zip(ours.shape, ours.stride(), strict=True)]
            assert lengths == [(n, n > 1 and step) for n, step in zip(theirs.shape, theirs.stride(), strict=True)]
        if args[0] is x:
            assert ours is not None or not x.is_contiguous()
            assert quick(f"aten::{name}_", args, {}) is x


@unhurried
@given(sizes, sizes, sizes, sizes, st.booleans(), st.booleans())
def test_attention(length, keys, width, values, crossed, unbatched):
    shapes = [(2, length, 3, width), (2, keys, 3, width), (2, keys, 3, values)]
    q, k, v = (empty(*shape).transpose(1, 2) if crossed else empty(shape[0], shape[2], shape[1], shape[3])
               for shape in shapes)
    q, k, v = (t[0] if unbatched else t for t in (q, k, v))
    attention = torch.ops.aten.scaled_dot_product_attention
    same(quick("aten::scaled_dot_product_attention", (q, k, v), {"scale": 2.0}), attention(q, k, v, scale=2.0))


@unhurried
@given(st.lists(sizes, min_size=1, max_size=3), st.integers(1, 3), st.data())
def test_concatenation(lengths, rank, data):
    dim = data.draw(st.integers(-rank, rank - 1))
    tensors = [empty(*[n if k == dim % rank else 3 for k in range(rank)]) for n in lengths]
    same(quick("aten::cat", (tensors, dim), {}), aten.cat(tensors, dim))


def test_dropout_in_training_gives_another_tensor_and_in_evaluation_the_same():
    x = empty(2, 3, 4).transpose(1, 2)
    same(quick("aten::dropout", (x, 0.5, True), {}), aten.dropout(x, 0.5, True))
    assert quick("aten::dropout", (x, 0.5, False), {}) is None
    assert quick("aten::dropout_", (x, 0.5, True), {}) is x


def test_linear_layers_over_permuted_positions():
    x, weight = empty(2, 3, 4, 5).permute(0, 2, 3, 1), empty(6, 3)
    same(quick("aten::linear", (x, weight), {}), aten.linear(x, weight))


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
    ("aten::mul_", (empty(1, 3), empty(2, 3))),
    ("aten::mul", (empty(2, 3).t(), empty(3, 2))),
    ("aten::cat", ([empty(2, 3), empty(2, 4)],)),
    ("aten::cat", ([empty(2, 3), empty(0)],)),
    ("aten::cat", ([empty(2, 3), empty(2, 3, dtype=torch.float64)],)),
    ("aten::cat", ([empty(2, 3), empty(2, 3).t().contiguous().t()], 1)),
    ("aten::scaled_dot_product_attention", (empty(2, 3, 4), empty(2, 3, 5), empty(2, 3, 5))),
    ("aten::scaled_dot_product_attention", (empty(2, 3, 4), empty(1, 3, 4), empty(2, 3, 4))),
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
    q = empty(2, 4, 3, 8)
    assert quick("aten::scaled_dot_product_attention", (q, q[:, :2], q[:, :2]), {"enable_gqa": True}) is None
