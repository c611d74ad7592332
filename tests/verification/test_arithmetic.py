"""Operators are computed in one precision, whatever the model asks for, and what they write into stays itself."""

import pytest
import torch

from fxprune.verification.arithmetic import Arithmetic, with_rounding
from fxprune.verification.masked import Computing

HALVES = torch.arange(6, dtype=torch.bfloat16).view(2, 3)


def computed(function, *tensors, arithmetic=Arithmetic(torch.float64)):
    with torch.inference_mode(), Computing(arithmetic.run):
        return function(*tensors)


@pytest.mark.parametrize(("function", "dtype"), [
    (lambda x: x.to(torch.bfloat16), torch.float64), (lambda x: x.half(), torch.float64),
    (lambda x: x.type_as(HALVES), torch.float64), (lambda x: x.to(torch.int32), torch.int32),
    (lambda x: x.softmax(-1, dtype=torch.float32), torch.float64),
    (lambda x: torch.zeros(3, dtype=torch.float16), torch.float64), (lambda x: x.to(torch.complex64), torch.complex128),
    (lambda x: x @ HALVES.T, torch.float64), (lambda x: torch.cat([x, HALVES]), torch.float64),
    (lambda x: torch.arange(3).float(), torch.float64), (lambda x: x > HALVES, torch.bool),
    (lambda x: x.view(torch.int64), torch.int64),
])
def test_casts_are_none_and_operands_are_widened(function, dtype):
    assert computed(function, torch.ones(2, 3, dtype=torch.float64)).dtype is dtype


def test_nothing_is_rounded_on_the_way():
    x = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(computed(lambda x: x.half().float().bfloat16().to(x.dtype), x), x)
    assert not torch.equal(computed(lambda x: x.half().to(x.dtype), x, arithmetic=Arithmetic(None)), x)


def test_what_is_written_into_stays_itself():
    stored = HALVES.clone()

    def write(x):
        stored[0].add_(x)
        stored.select(1, 0).zero_()
        return stored

    out = computed(write, torch.full((3,), 0.5, dtype=torch.float64))
    assert out is stored and out.dtype is torch.bfloat16 and out.tolist() == [[0.0, 1.5, 2.5], [0.0, 4.0, 5.0]]


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_stored_weights_are_widened_operator_by_operator(wide):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64).bfloat16().requires_grad_(False)
    x = torch.randn(2, 64, dtype=wide)
    got = computed(layer, x, arithmetic=Arithmetic(wide, stored=True))
    assert got.dtype is wide and layer.weight.dtype is torch.bfloat16
    assert torch.equal(got, torch.nn.functional.linear(x, layer.weight.to(wide), layer.bias.to(wide)))


def test_rounding_changes_what_is_computed_and_no_view_of_it():
    x = torch.ones(1000, dtype=torch.float64)
    with torch.inference_mode(), Computing(with_rounding(Arithmetic(None).run, 0)):
        product, view, counts = x * 3.0, x[:10], torch.arange(3)
        written = x.mul_(2.0)
    moved = (product / 3.0 - 1).abs()
    assert 0 < moved.max() <= 2 * torch.finfo(torch.float64).eps and moved.gt(0).sum() > 300
    assert view.tolist() == [2.0] * 10 and counts.tolist() == [0, 1, 2] and written is x and x.eq(2.0).all()


def test_rounding_of_a_lower_dtype_is_larger_and_another_seed_gives_another():
    ones = torch.ones(1000)
    runs = [with_rounding(Arithmetic(None).run, seed)(torch.ops.aten.mul.Tensor, (ones, 3.0), {}) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert 1e-8 < (runs[0] / 3 - 1).abs().max() < 1e-6
