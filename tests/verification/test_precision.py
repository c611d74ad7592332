"""In which precision a large model is compared, and what decides where rounding and error look alike."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import VerificationError
from fxprune.verification import validation as passes
from fxprune.verification.prepare import pair


class Single(nn.Module):
    """Takes nothing but single precision."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        if x.dtype is not torch.float32:
            raise TypeError(f"float32 only, got {x.dtype}")
        return self.b(self.a(x).relu())


X = torch.randn(2, 3, 8, 8)


@pytest.fixture
def large(monkeypatch):
    """Every model counts as large, and no two numbers in single precision are close enough."""
    monkeypatch.setattr(passes, "DOUBLE_LIMIT", 0)
    monkeypatch.setitem(passes.TOLERANCE, torch.float32, -1.0)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def test_a_large_model_is_compared_in_its_own_precision(monkeypatch):
    monkeypatch.setattr(passes, "DOUBLE_LIMIT", 0)
    assert fxprune.record(fxprune.compress(net(), X, channels=0.5)).verification.dtype == "float32"


def test_double_precision_decides_where_single_does_not(large):
    proof = fxprune.record(fxprune.compress(net(), X, channels=0.5)).verification
    assert proof.dtype == "float64" and proof.max_error < 1e-12
    assert any("not in float32" in note and "differs" in note for note in proof.notes)


def test_an_error_stays_one(large):
    model = net()
    small = fxprune.compress(model, X, channels=0.5, verify=False)
    graph = small.graph
    relu = next(node for node in graph.nodes if node.target == "2")
    relu.replace_all_uses_with(relu.args[0])
    graph.erase_node(relu)
    small.recompile()
    with pytest.raises(VerificationError, match="differs by"):
        fxprune.verify(model, small, fxprune.record(small).plan)


def test_where_only_single_precision_runs_its_word_stands(large):
    with pytest.raises(VerificationError, match="differs by"):
        fxprune.compress(Single(), X, channels=0.5)


class Lowered(nn.Module):
    """Part of it is computed in single precision, whatever it is given."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 64), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        y = self.b(self.a(x).relu())
        y = (y.float().exp().cumsum(-1)).to(y.dtype)
        return self.c(y.log().relu())


class Limits(nn.Module):
    """A mask that is filled with its dtype's lowest number, twice over."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        scores = self.a(x) @ self.a(x).transpose(-1, -2)
        lowest = torch.zeros_like(scores).masked_fill(scores.abs() >= 0, torch.finfo(scores.dtype).min)
        weights = (scores + lowest + lowest).softmax(-1).nan_to_num(0.5)
        return self.b(weights @ self.a(x))


class Remembered(nn.Module):
    """A table that it makes once for each dtype."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(x).relu()) + table(x.dtype)


TABLES = {}


def table(dtype):
    if dtype not in TABLES:
        TABLES[dtype] = torch.linspace(0, 1, 3, dtype=dtype)
    return TABLES[dtype]


def test_what_python_remembers_for_one_dtype_sends_the_other_astray():
    model, x = Remembered(), torch.randn(2, 6)
    model(x)
    proof = fxprune.record(fxprune.compress(model, x, channels=0.5)).verification
    assert proof.dtype == "float32" and "must run as it was captured" in proof.notes[0]


def test_a_lower_precision_in_the_model_loosens_nothing():
    torch.manual_seed(0)
    proof = fxprune.record(fxprune.compress(Lowered(), torch.randn(2, 5, 6), channels=0.5)).verification
    assert proof.dtype == "float64" and proof.tolerance == 1e-6 and proof.max_error < 1e-12


class Mixed(nn.Module):
    """A norm that stays in single precision, as in diffusion nets."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3).bfloat16(), nn.Conv2d(16, 4, 1).bfloat16()
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x):
        y = self.a(x.bfloat16())
        return self.b(self.norm(y.float()).to(y.dtype).relu()).float()


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.norm(self.a(x)).relu()
        return self.b(y.float())


@pytest.mark.parametrize("make", [Mixed, Autocast])
def test_layers_of_several_dtypes_are_compared_in_one(make):
    torch.manual_seed(0)
    model = make()
    small = fxprune.compress(model, X, channels=0.5)
    proof = fxprune.record(small).verification
    assert proof.dtype == "float64" and proof.tolerance == 1e-6 and proof.max_error < 1e-12 and not proof.notes
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert {name: p.dtype for name, p in small.named_parameters()} == dtypes


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x):
        heads = [layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        return self.o(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


def halved(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(Attention(), nn.Linear(64, 8)).eval().to(dtype)
    x = torch.randn(2, 6, 64, dtype=dtype)
    plan = fxprune.plan(fxprune.analyze(model, x), model, channels=0.75)
    return model, plan, fxprune.apply(model, plan, verify=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_large_models_are_compared_in_single_precision_whatever_theirs_is(monkeypatch, dtype):
    monkeypatch.setattr(passes, "DOUBLE_LIMIT", 0)
    model, plan, small = halved(dtype)
    proof = fxprune.verify(model, small, plan)
    assert proof.dtype == "float32" and proof.tolerance == 1e-4 and proof.max_error < 1e-5 and not proof.notes
    for node in small.graph.nodes:
        if "scale" in node.kwargs:
            node.update_kwarg("scale", node.kwargs["scale"] * 1.01)
    small.recompile()
    with pytest.raises(VerificationError, match="scaled_dot_product_attention"):
        fxprune.verify(model, small, plan)


def test_the_weights_of_a_large_model_are_copied_in_their_own_precision(monkeypatch):
    monkeypatch.setattr(passes, "DOUBLE_LIMIT", 0)
    made = []
    monkeypatch.setattr(passes, "pair", lambda *args: made.append(pair(*args)) or made[-1])
    model, plan, small = halved(torch.bfloat16)
    fxprune.verify(model, small, plan)
    assert made and {p.dtype for sides in made for side in sides for p in side.parameters()} == {torch.bfloat16}


def test_where_one_precision_leaves_its_range_the_other_decides():
    torch.manual_seed(0)
    proof = fxprune.record(fxprune.compress(Limits(), torch.randn(2, 5, 6), channels=0.5)).verification
    assert proof.dtype == "float32" and "differs by inf" in proof.notes[0]
