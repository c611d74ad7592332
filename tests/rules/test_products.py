"""Every contraction as a product of matrices: what the operator computes, position by position."""

import pytest
import torch
import torch.nn.functional as F

from fxprune.rules.products import as_weight, factors, positions, product_of

torch.manual_seed(0)
R = torch.randn
CASES = {
    "conv1d, same": ("aten::conv1d", F.conv1d, (R(2, 4, 9), R(5, 4, 3), None, 1, "same"), 1),
    "conv2d, all": ("aten::conv2d", F.conv2d, (R(2, 4, 7, 6), R(6, 2, 3, 2), None, [2, 1], [1, 1], [1, 2], 2), 1),
    "conv2d, depthwise": ("aten::conv2d", F.conv2d, (R(2, 4, 6, 6), R(4, 1, 3, 3), None, 1, 1, 1, 4), 1),
    "conv2d, no batch": ("aten::conv2d", F.conv2d, (R(4, 6, 6), R(3, 4, 3, 3)), 1),
    "conv3d": ("aten::conv3d", F.conv3d, (R(2, 3, 5, 5, 5), R(4, 3, 2, 3, 1)), 1),
    "transposed": ("aten::conv_transpose2d", F.conv_transpose2d,
                   (R(2, 6, 5, 4), R(6, 2, 3, 3), None, [2, 2], [1, 1], [1, 1], 3, [1, 1]), 1),
    "transposed, cropped": ("aten::conv_transpose1d", F.conv_transpose1d,
                            (R(2, 6, 5), R(6, 2, 4), None, [3], [2], [1], 2, [2]), 1),
    "general": ("aten::convolution", torch.convolution,
                (R(2, 4, 6, 6), R(4, 2, 3, 3), None, [1, 2], [1, 0], [1, 1], False, [0, 0], 2), 1),
    "linear": ("aten::linear", F.linear, (R(2, 3, 4), R(5, 4)), 1),
    "matmul": ("aten::matmul", torch.matmul, (R(2, 3, 4), R(4, 5)), 1),
    "matmul, weight first": ("aten::matmul", torch.matmul, (R(5, 4), R(2, 4, 3)), 0),
    "bmm": ("aten::bmm", torch.bmm, (R(2, 3, 4), R(2, 4, 5)), 1),
    "einsum": ("aten::einsum", torch.einsum, ("bhi,hoi->boh", (R(2, 3, 4), R(3, 5, 4))), 1),
    "einsum, weight first": ("aten::einsum", torch.einsum, ("oi,b...i->b...o", (R(3, 4), R(2, 5, 4))), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_are_the_outputs(case):
    op, function, args, at = CASES[case]
    product, y = product_of(op, args, {}, at), function(*args)
    x, weight = factors(op, args)[product.x_at], factors(op, args)[product.weight_at]
    n = positions(product, y, weight)
    picked = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:max(n // 2, 1)]
    expected = product.outputs(y, picked)
    torch.testing.assert_close(product.rows(x, picked) @ product.matrix(weight), expected, atol=1e-4, rtol=1e-4)
    assert y.numel() == n * product.matrix(weight).shape[0] * expected.shape[2]


@pytest.mark.parametrize("case", CASES)
def test_positions_are_drawn_on_the_cpu_wherever_the_values_are(case):
    op, function, args, at = CASES[case]
    product, y = product_of(op, args, {}, at), function(*args)
    x, picked = factors(op, args)[product.x_at], torch.tensor([1, 0])
    for read, values in ((product.rows, x), (product.outputs, y)):
        there = read(values.to("meta"), picked)
        assert there.is_meta and there.shape == read(values, picked).shape


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_goes_back_into_its_weight(case):
    op, _, args, at = CASES[case]
    weight = factors(op, args)[at]
    product = product_of(op, args, {}, at)
    assert torch.equal(as_weight(product, product.matrix(weight), weight), weight)


def test_an_added_product_has_its_bias_in_front():
    args = (R(5), R(3, 4), R(4, 5))
    product, y = product_of("aten::addmm", args, {}, 2), torch.addmm(*args)
    picked = torch.arange(3)
    torch.testing.assert_close(product.rows(args[1], picked) @ product.matrix(args[2]) + args[0],
                               product.outputs(y, picked))
    assert (product.x_at, product.bias_at) == (1, 0)


@pytest.mark.parametrize(("op", "args", "kwargs", "at"), [
    ("aten::relu", (R(2), ), {}, 1),
    ("aten::einsum", ("ii,ij->j", (R(3, 3), R(3, 2))), {}, 1),
    ("aten::einsum", ("bi,oi->o", (R(2, 3), R(4, 3))), {}, 1),
    ("aten::einsum", ("bi,oi,oi->bo", (R(2, 3), R(4, 3), R(4, 3))), {}, 1),
    ("aten::addmm", (R(5), R(3, 4), R(4, 5)), {"beta": 2}, 2),
    ("aten::matmul", (R(3, 2, 4), R(2, 3, 4, 5)), {}, 1),
])
def test_what_is_no_such_product(op, args, kwargs, at):
    assert product_of(op, args, kwargs, at) is None
