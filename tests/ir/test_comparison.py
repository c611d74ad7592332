"""What counts as a difference, and what as none."""

import math

import pytest
import torch

from fxprune.ir.comparison import difference, identical

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("reference", "got", "expected"), [
    ([4.0, 2.0], [4.0, 2.0], 0.0),
    ([4.0, 2.0], [4.0, 1.0], 0.25),
    ([NAN, 2.0], [NAN, 1.0], 0.5),
    ([NAN, 2.0], [1.0, 2.0], INF),
    ([1.0, 2.0], [NAN, 2.0], INF),
    ([-INF, 2.0], [-INF, 2.0], 0.0),
    ([-INF, 2.0], [torch.finfo(torch.float32).min, 2.0], 0.0),
    ([INF, 2.0], [-INF, 2.0], 2.0),
    ([0.0, 0.0], [0.0, 1e-12], 1e18),
    ([], [], 0.0),
])
def test_relative_to_the_largest_finite_magnitude(reference, got, expected):
    assert difference(torch.tensor(reference), torch.tensor(got)) == pytest.approx(expected)


def test_integers_differ_or_do_not():
    assert difference(torch.tensor([5, 7]), torch.tensor([5, 8])) == 1.0
    assert difference(torch.tensor([True]), torch.tensor([True])) == 0.0


def test_complex_numbers():
    assert difference(torch.tensor([3 + 4j]), torch.tensor([3 + 3j])) == pytest.approx(0.2)
    assert difference(torch.tensor([3 + 4j]).conj(), torch.tensor([3 - 4j])) == 0.0


def test_least_is_the_smallest_scale():
    assert difference(torch.tensor([0.5]), torch.tensor([0.25]), least=1.0) == 0.25
    assert difference(torch.tensor([2.0]), torch.tensor([1.0]), least=1.0) == 0.5


@pytest.mark.parametrize(("a", "b", "expected"), [
    (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), True),
    (torch.tensor([1.0, NAN]), torch.tensor([1.0, 0.0]), False),
    (torch.tensor([1e31]), torch.tensor([1e32]), False),
    (torch.tensor([1.0]), torch.tensor([math.nextafter(1.0, 2.0)], dtype=torch.float64), False),
    (torch.tensor([1.0]), torch.tensor([[1.0]]), False),
    (torch.tensor([3]), torch.tensor([3]), True),
])
def test_identical(a, b, expected):
    assert identical(a, b) is expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_compared_like_others(dtype):
    lowest = torch.finfo(dtype).min
    assert difference(torch.tensor([4.0, 2.0], dtype=dtype), torch.tensor([4.0, 1.0], dtype=dtype)) == 0.25
    assert difference(torch.tensor([lowest, 2.0], dtype=dtype), torch.tensor([lowest, 2.0], dtype=dtype)) == 0.0
