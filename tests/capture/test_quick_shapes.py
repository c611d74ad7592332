"""The quick shapes and the remembered kernels agree with torch's own meta kernels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fxprune.capture.kernels import Kernels
from fxprune.capture.quick_shapes import shape_of

aten = torch.ops.aten
sizes = st.integers(1, 4)


@given(st.lists(sizes, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4))
def test_broadcasting(shape, single, drop):
    a = torch.empty(shape, device="meta")
    b = torch.empty([1 if one else n for n, one in zip(shape, single, strict=False)][drop:], device="meta")
    for x, y in ((a, b), (b, a)):
        assert shape_of("aten::mul", (x, y), {}) == tuple(aten.mul.Tensor(x, y).shape)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.booleans())
def test_convolutions(spatial, kernel, stride, padding, dilation, spread):
    x = torch.empty(2, 4, *range(9, 9 + spatial), device="meta")
    weight = torch.empty(6, 2, *[kernel] * spatial, device="meta")
    numbers = [[n] * spatial if spread else [n] for n in (stride, padding, dilation)]
    conv = getattr(aten, f"conv{spatial}d")
    assert shape_of(f"aten::conv{spatial}d", (x, weight, None, *numbers, 2), {}) == \
        tuple(conv(x, weight, None, *numbers, 2).shape)


@given(st.lists(sizes, min_size=1, max_size=3), sizes, st.booleans())
def test_linear(shape, out, bias):
    x, weight = torch.empty(*shape, 3, device="meta"), torch.empty(out, 3, device="meta")
    args = (x, weight, torch.empty(out, device="meta") if bias else None)
    assert shape_of("aten::linear", args, {}) == tuple(aten.linear(*args).shape)


@given(st.integers(1, 3), st.lists(sizes, min_size=3, max_size=3))
def test_adaptive_pools(spatial, out):
    x, size = torch.empty(2, 4, *range(7, 7 + spatial), device="meta"), out[:spatial]
    pool = getattr(aten, f"adaptive_avg_pool{spatial}d")
    assert shape_of(f"aten::adaptive_avg_pool{spatial}d", (x, size), {}) == tuple(pool(x, size).shape)


@given(st.lists(sizes, min_size=1, max_size=4), st.lists(sizes, min_size=1, max_size=3), st.data())
def test_concatenations(shape, lengths, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = [torch.empty([n if d == dim % len(shape) else m for d, m in enumerate(shape)], device="meta")
             for n in lengths]
    assert shape_of("aten::cat", (parts, dim), {}) == tuple(aten.cat(parts, dim).shape)


@pytest.mark.parametrize("name, args", [
    ("aten::cat", ([torch.empty(2, 3), torch.empty(2, 4)], 0)),
    ("aten::cat", ([torch.empty(2, 3), torch.empty(0)], 0)),
    ("aten::cat", ([torch.empty(2, 3), torch.empty(2, 3, dtype=torch.float64)], 0)),
    ("aten::cat", ([torch.empty(2, 3)], 2)),
    ("aten::linear", (torch.empty(2, 4), torch.empty(5, 3), None)),
    ("aten::linear", (torch.empty(3), torch.empty(5, 3), None)),
    ("aten::linear", (torch.empty(2, 3), torch.empty(5, 3), torch.empty(4))),
    ("aten::adaptive_avg_pool2d", (torch.empty(3, 8, 8), [1, 1])),
    ("aten::mul", (2.0, torch.empty(3))),
])
def test_what_does_not_fit_is_left_to_the_kernel(name, args):
    assert shape_of(name, args, {}) is None


@pytest.mark.parametrize("args, kwargs", [
    ((torch.empty(2, 3), torch.empty(2, 3, dtype=torch.float64)), {}),
    ((torch.empty(2, 3).t(), torch.empty(3, 2)), {}),
    ((torch.ones(2, dtype=torch.int64), 2), {}),
    ((torch.ones(2), 2j), {}),
    ((torch.empty(2), torch.empty(2)), {"alpha": 2}),
    ((torch.empty(2), torch.empty(3)), {}),
], ids=["dtypes", "strides", "integers", "complex", "keyword", "unequal"])
def test_the_rest_is_left_to_the_kernel(args, kwargs):
    assert shape_of("aten::add", args, kwargs) is None


@pytest.mark.parametrize("shape", [(1, 5, 8, 8), (1, 3, 2, 8), (3, 8, 8)], ids=["channels", "small", "rank"])
def test_wrong_inputs_are_left_to_the_kernel(shape):
    assert shape_of("aten::conv2d", (torch.empty(shape), torch.empty(6, 3, 3, 3)), {}) is None


def test_views_and_writes_are_never_remembered():
    kernels, x = Kernels(), torch.empty(2, 3, device="meta")
    assert kernels(aten.view.default, (x, [6]), {})._base is x
    assert kernels(aten.relu_.default, (x,), {}) is x
    assert not kernels.known


def test_numbers_of_unlike_types_are_told_apart():
    kernels, x = Kernels(), torch.ones(2, dtype=torch.int64, device="meta")
    made = [kernels(aten.mul.Tensor, (x, number), {}).dtype for number in (2, 2.0, True, 2)]
    assert made == [torch.int64, torch.float32, torch.int64, torch.int64]
    assert len(kernels.known) == 3


def test_results_of_several_tensors_are_fresh_each_time():
    kernels, x = Kernels(), torch.empty(4, 3, device="meta")
    first, second = (kernels(aten.max.dim, (x, 0), {}) for _ in range(2))
    assert [t.dtype for t in second] == [torch.float32, torch.int64]
    assert all(a is not b and a.shape == b.shape for a, b in zip(first, second, strict=True))
