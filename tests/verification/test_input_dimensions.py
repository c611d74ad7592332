"""Which dimensions of the inputs are free, proven at two lengths; which are fixed, why, and who says so."""

import copy

import pytest
import torch
from torch import nn

import fxprune
from fxprune.verification.input_dimensions import UNKNOWN, WEIGHTS, InputDimension
from fxprune.verification.verdict import Verification


class Positions(nn.Module):
    """It asks for no size, and a parameter decides on the length."""

    def __init__(self):
        super().__init__()
        self.a, self.places, self.b = nn.Linear(3, 8), nn.Parameter(torch.randn(1, 7, 8)), nn.Linear(8, 2)

    def forward(self, batch):
        return self.b((self.a(batch["x"]) + self.places).relu()) * batch["scale"]


class Branching(nn.Module):
    """Python decides on the batch size: a guard, which all other batches of the same answer pass."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(self.a(x) if x.shape[0] == 2 else -self.a(x))


def compressed(model, example):
    torch.manual_seed(0)
    return fxprune.compress(model.eval(), example, channels=0.5)


def rows(small):
    return {(row.argument, row.dim): row for row in fxprune.record(small).dimensions}


def flat():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5))


def test_what_takes_any_size_is_free_and_was_compared_at_two():
    small = compressed(flat()[:3], torch.randn(2, 3, 8, 8))
    found = rows(small)
    assert [found["input", dim].free for dim in range(4)] == [True, False, True, True]
    assert found["input", 0].compared == (2, 3) and found["input", 2].compared == (8, 10)
    assert found["input", 1].why == WEIGHTS and not found["input", 1].asserted
    assert fxprune.record(small).verification.shapes == (((2, 3, 8, 8),), ((3, 3, 10, 10),))


@pytest.mark.parametrize("changed", [lambda m: m, copy.deepcopy], ids=["as it is", "copied"])
def test_what_the_model_takes_at_one_length_is_asserted_at_the_beginning_though_it_never_asked(changed):
    small = compressed(flat(), torch.randn(2, 3, 8, 8))
    found, small = rows(small), changed(small)
    assert found["input", 0].free and "at 16 the model raises RuntimeError" in found["input", 2].why
    assert small(torch.randn(5, 3, 8, 8)).shape == (5, 5)
    ops = [node.op for node in small.graph.nodes]
    assert ops.index("call_module") > [node.target for node in small.graph.nodes].index(torch._assert)
    with pytest.raises(AssertionError, match="captured with input of size 8 in dimension 3, which is fixed: at 16 the"):
        small(torch.randn(2, 3, 8, 9))


def test_items_of_arguments_go_by_their_names():
    small = compressed(Positions(), {"batch": {"x": torch.randn(2, 7, 3), "scale": torch.ones(1)}})
    assert rows(small)["batch['x']", 0].free and not rows(small)["batch['x']", 1].free
    with pytest.raises(AssertionError, match=r"captured with batch\['x'\] of size 7 in dimension 1"):
        small({"x": torch.randn(2, 8, 3), "scale": torch.ones(1)})


def test_a_guard_that_pins_a_dimension_names_it_first():
    small = compressed(Branching(), torch.randn(2, 6))
    assert rows(small)["x", 0].asserted and fxprune.record(small).verification.ok
    assert {mode for mode, _ in fxprune.record(small).verification.runs} == {"eval", "train"}
    with pytest.raises(AssertionError, match="captured with x of size 2 in dimension 0"):
        small(torch.randn(3, 6))


def test_the_table_is_no_more_than_what_was_compared():
    small = fxprune.compress(flat(), torch.randn(2, 3, 8, 8), channels=0.5, verify=False)
    assert fxprune.record(small).dimensions == ()
    row = InputDimension("x", 0, 4, (4,), UNKNOWN)
    assert not row.free and not row.asserted and str(row) == f"x[0] at 4: {UNKNOWN}"
    assert str(InputDimension("x", 0, 4, (4, 5))) == "x[0] free (4, 5)"


def test_a_mode_that_was_claimed_and_not_compared_is_not_ok():
    made = {"max_error": 0.0, "nodes": 3, "worst": "a", "tolerance": 1e-6, "dtype": "float64"}
    whole = Verification(**made, runs=(("eval", 1), ("train", 2)), claimed=("eval", "train"))
    half = Verification(**made, runs=(("eval", 1),), claimed=("eval", "train"))
    assert whole.ok and "not compared" not in str(whole)
    assert not half.ok and "not compared: train" in str(half)
    assert Verification(**made, runs=(("eval", 1),), claimed=("eval",)).ok


def test_apply_and_load_verify_as_compress_does(tmp_path, monkeypatch):
    model, x = flat(), torch.randn(2, 3, 8, 8)
    plan = fxprune.plan(fxprune.analyze(model, x), model, channels=0.5)
    small = fxprune.apply(model, plan)
    assert fxprune.record(small).verification.ok and not rows(small)["input", 2].free
    assert fxprune.record(fxprune.apply(model, plan, verify=False)).verification is None
    fxprune.save(small, tmp_path / "out")
    assert rows(fxprune.load(tmp_path / "out", model=model)) == rows(small)
    with torch.device("meta"):
        empty = flat()
    with pytest.raises(fxprune.InputError, match="meta device; pass verify=False"):
        fxprune.apply(empty, plan, weights="any")


class Reshaped(nn.Module):
    """At twice the positions an image of each batch becomes two, with channels and positions mixed."""

    def __init__(self):
        super().__init__()
        self.stem, self.mlp, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = self.mlp(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(y.transpose(1, 2).reshape(-1, 6, 4, 4))


def test_where_the_result_is_another_one_at_other_lengths_it_refuses_them():
    torch.manual_seed(0)
    model = Reshaped()
    small = fxprune.compress(model, torch.randn(2, 3, 4, 4), channels=0.5)
    table = {d.dim: d for d in fxprune.record(small).dimensions}
    assert table[0].free and fxprune.record(small).verification.ok
    for dim in (2, 3):
        assert table[dim].why == "at other lengths the result is another one, first at 'reshape'"
        assert table[dim].asserted
    assert model(torch.randn(2, 3, 8, 4)).shape == (4, 2, 4, 4)
    with pytest.raises(AssertionError, match="x of size 4 in dimension 2, which is fixed: at other lengths"):
        small(torch.randn(2, 3, 8, 4))
    assert small(torch.randn(5, 3, 4, 4)).shape == (5, 2, 4, 4)


class PartlyTurned(nn.Module):
    """As many channels are turned as an argument has: what of them stays is a number of the plan's."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x, angles):
        x = self.a(x)
        n = angles.shape[-1]
        return self.b(torch.cat([x[..., :n] * angles, x[..., n:]], -1))


def test_a_length_in_whose_place_the_plan_has_put_a_number_is_fixed():
    model, x, angles = PartlyTurned(), torch.randn(2, 5, 6), torch.randn(5, 8)
    small = fxprune.compress(model, (x, angles), channels=0.5)
    assert small.b.in_features == 12
    fixed = next(row for row in fxprune.record(small).dimensions if (row.argument, row.dim) == ("angles", 1))
    assert not fixed.free and "eq(size(1), 8) was True" in fixed.why
    model(x, torch.randn(5, 16))
    with pytest.raises(AssertionError, match="captured with angles of size 8 in dimension 1, which is fixed"):
        small(x, torch.randn(5, 16))
    reason = fxprune.analyze(model, (x, angles), form="module").groups["a#2"].frozen
    assert "tells channels apart by size(1), which its inputs decide" in str(reason)
