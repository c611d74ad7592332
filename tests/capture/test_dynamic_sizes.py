"""What other code makes of a size: an expression where there is one, else a dimension that is fixed, by name."""

import functools
import math

import numpy as np
import pytest
import torch
from test_capturing import agree, whole
from torch import nn

import fxprune
from fxprune.capture import capturing
from fxprune.capture.capturing import capture
from fxprune.capture.sizes import Size, readable


class Scaled(nn.Module):
    """Multiplies by a number that a function makes of the input [N, 3, H, W]."""

    def __init__(self, number):
        super().__init__()
        self.a, self.b, self.number = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), number

    def forward(self, x):
        return self.b(self.a(x).relu()) * self.number(x)


def image(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype)


def fixed(model, *example):
    """Argument, dimension and reason of each fixed dimension of the captured graph."""
    captured = capture(model, example)
    assert captured.mode == "graph", captured.why
    return {(f.argument, f.dim): f.why for traced in captured.traced for f in traced.fixed}


def expressions(model, *example):
    """The expressions that stand in the graph."""
    graph = capture(model, example).modes["eval"].graph
    return {readable(node.meta["size"]) for node in graph.nodes if "size" in node.meta}


FOLLOWED = {
    "float": (lambda x: float(x.shape[-1]), "float(size(3))"),
    "sqrt": (lambda x: math.sqrt(x.shape[-1]), "sqrt(size(3))"),
    "reciprocal root": (lambda x: 1 / math.sqrt(x.shape[-1]), "pow(size(3), -0.5)"),
    "isqrt": (lambda x: math.isqrt(x.shape[-1]), "isqrt(size(3))"),
    "log1p": (lambda x: math.log1p(x.shape[-1]), "log1p(size(3))"),
    "numpy": (lambda x: float(np.sqrt(x.shape[-1])), "sqrt(size(3))"),
    "a list's item": (lambda x: list(range(1000))[x.shape[-1]], "size(3)"),
    "int of a quotient": (lambda x: int(x.shape[-1] / 4), "trunc(truediv(size(3), 4))"),
    "length": (lambda x: len(x) * 0.5, "mul(float(size(0)), 0.5)"),
    "count": (lambda x: len(range(x.shape[2])), "size(2)"),
    "product of two": (lambda x: x.shape[2:].numel(), "mul(size(2), size(3))"),
}


@pytest.mark.parametrize("number, expression", FOLLOWED.values(), ids=FOLLOWED)
def test_a_number_that_follows_a_size_is_computed_from_it(number, expression):
    model = Scaled(number)
    assert expression in expressions(model, image(2, 3, 8, 8, dtype=torch.float32))
    small = whole(model, image(2, 3, 8, 8, dtype=torch.float32))
    for shape in ((2, 3, 8, 8), (5, 3, 8, 8), (1, 3, 18, 31)):
        agree(model, small, image(*shape))


HELD = {
    "text": (lambda x: {"8": 1.0}.get(f"{x.shape[-1]}", 7.0), 3, "the number 1.0 in mul"),
    "array": (lambda x: torch.from_numpy(np.arange(x.shape[-1], dtype=np.float32)).sum(), 3, "a constant that Python"),
    "loop": (lambda x: sum(x[:, :, k].mean() for k in range(x.shape[2])), 2, "is not what runs there"),
    "right twice, wrong then": (lambda x: [2, 2, 2, 3, 4][len(x)] if len(x) < 5 else 5, 0, "the number 2 in mul"),
}


@pytest.mark.parametrize("number, dim, why", HELD.values(), ids=HELD)
def test_a_dimension_that_python_made_concrete_is_fixed_and_asserted_first_of_all(number, dim, why):
    model, x = Scaled(number), image(2, 3, 8, 8, dtype=torch.float32)
    found = fixed(model, x)
    assert list(found) == [("x", dim)] and why in found["x", dim]
    small = fxprune.compress(model.eval(), x, channels=0.5)
    shape = [2, 3, 8, 8]
    others = shape.copy()
    others[{0: 2}.get(dim, 0)] += 3  # another dimension, which is free
    small(torch.randn(others))
    shape[dim] += 4
    with pytest.raises(AssertionError, match=rf"x of size {x.shape[dim]} in dimension {dim}, which is fixed: .*again"):
        small(torch.randn(shape))
    calls = [node for node in small.graph.nodes if node.op in ("call_module", "call_function")]
    assert torch._assert in [node.target for node in calls[:2]], "asserted before anything is computed"


def test_a_condition_is_a_guard_and_fixes_nothing():
    model = Scaled(lambda x: 2.0 if x.shape[2] % 2 else 3.0)
    assert fixed(model, image(2, 3, 8, 8, dtype=torch.float32)) == {}
    small = whole(model, image(2, 3, 8, 8, dtype=torch.float32))
    agree(model, small, image(2, 3, 12, 8))
    with pytest.raises(AssertionError, match=r"mod\(size\(2\), 2\)\) was False"):
        small(image(2, 3, 9, 8, dtype=torch.float32))


def test_a_dimension_that_the_model_asks_for_is_fixed_for_that_reason():
    model = Scaled(lambda x: 1.0 if x.shape[3] == 8 else 2.0)
    found = fixed(model, image(2, 3, 8, 8, dtype=torch.float32))
    assert list(found) == [("x", 3)] and "the model asks for it (test_dynamic_sizes.py:" in found["x", 3]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 2)
        self.places = nn.Parameter(torch.randn(16, 8))

    def forward(self, batch):
        ids, mask = batch["ids"], batch["mask"]
        length = np.arange(ids.shape[1]).size
        return self.b(self.a(self.embed(ids) + self.places[:length]).relu()) * mask[:, :, None] / math.log(length + 1)


def test_dimensions_that_must_change_together_do():
    """Ids and their mask; and lengths up to the sixteen positions that there are."""
    def batch(n, length):
        return {"ids": torch.randint(20, (n, length)), "mask": torch.rand(n, length, dtype=torch.float64)}

    example = batch(2, 16)
    model = Tokens()
    assert fixed(model, {**example, "mask": example["mask"].float()}) == {}
    small = whole(model, {**example, "mask": example["mask"].float()})
    agree(model, small, batch(3, 5))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x, adjacency):
        return adjacency @ self.b((adjacency @ self.a(x)).relu()) / float(x.shape[0])


def test_all_dimensions_of_one_length_where_fewer_do_not_fit():
    model = Graph()
    assert fixed(model, torch.randn(9, 6), torch.rand(9, 9)) == {}
    small = whole(model, torch.randn(9, 6), torch.rand(9, 9))
    agree(model, small, torch.randn(5, 6).double(), torch.rand(5, 5).double())


class Caching(nn.Module):
    cache = {}

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        y = self.a(x).relu()
        n = self.cache.setdefault(y.dim(), y.shape[0])
        return self.b(y.reshape(n, y.shape[1], 16))


def test_a_cache_that_outlives_the_capture():
    """Filled before, it holds the batch; filled by the capture, it holds a number and nothing of the capture."""
    Caching.cache = {}
    model, x = Caching(), torch.randn(2, 4, 6)
    model(x)
    assert list(fixed(model, x)) == [("x", 0)]
    Caching.cache = {}
    assert list(fixed(model, x)) == [("x", 0)]
    held = Caching.cache[3]
    assert held == 2 and type(held + 1) is int
    if isinstance(held, Size):
        assert held.book.closed and not held.book.guards and not held.book.data(0)


@functools.lru_cache
def _half(n):
    return n // 2


def test_a_memo_that_was_filled_by_the_user():
    for n in range(40):
        _half(n)
    model = Scaled(lambda x: _half(x.shape[2]))
    small = whole(model, image(2, 3, 8, 8, dtype=torch.float32))
    agree(model, small, image(2, 3, 13, 8))


def counted(monkeypatch):
    runs = []
    trace = capturing.Tracer.trace
    monkeypatch.setattr(capturing.Tracer, "trace", lambda self, *args: (runs.append(1), trace(self, *args))[1])
    return runs


@pytest.mark.parametrize("model, example, expected", [
    (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)), image(2, 3, 8, 8), 1),
    (nn.TransformerEncoderLayer(8, 2, 16, 0.0), image(4, 2, 8), 1),
    (Scaled(lambda x: x.new_zeros(x.shape[2], 1)), image(2, 3, 8, 8), 2),
    (Scaled(lambda x: torch.ones(x.shape[2], 1, dtype=x.dtype)), image(2, 3, 8, 8), 2),
    (Scaled(lambda x: torch.finfo(x.dtype).eps * torch.ones(x.shape[2], 1, dtype=x.dtype)), image(2, 3, 8, 8), 4),
], ids=["no size asked for", "asked for by our own attention", "asked for by the model", "a dtype as well",
        "a number that follows the dtype"])
def test_how_often_a_model_is_captured(monkeypatch, model, example, expected):
    runs = counted(monkeypatch)
    assert fixed(model, example.float()) == {} and len(runs) == expected
