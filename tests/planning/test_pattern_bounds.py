"""Budgets by pattern: alone, and as bounds beside another budget."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fxprune
from fxprune.cli.compress_command import arguments
from fxprune.cli.main import parser
from fxprune.errors import BudgetError, InputError
from fxprune.planning.pattern_bounds import bounds_of
from fxprune.planning.stairs import Prices


def stage(width, read):
    return nn.Sequential(nn.Conv2d(read, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
                         nn.ReLU())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2, self.layer3 = stage(10, 3), stage(14, 10), stage(20, 14)
        self.head = nn.Conv2d(20, 2, 1)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(x))))


torch.manual_seed(0)
NET, X = Net(), torch.randn(1, 3, 8, 8)
COUPLING = fxprune.analyze(NET, X)


def drawn(**options):
    return fxprune.plan(COUPLING, NET, **options)


def test_alone_each_pattern_says_what_its_groups_keep_and_others_stay_whole():
    plan = drawn(channels={"layer1.*": 0.8, "layer3.*": 0.33})
    assert plan.widths == {"layer1.0": 8, "layer1.2": 8, "layer3.0": 7, "layer3.2": 7}
    assert plan.options["budget"] == {"channels": {"layer1.*": 0.8, "layer3.*": 0.33}}
    assert plan.options["whole"] == ("layer2.0", "layer2.2")
    assert fxprune.Plan.from_dict(plan.to_dict()) == plan
    assert drawn(channels={"layer1.0": 0.5}).widths == {"layer1.0": 5}


def test_the_last_pattern_that_matches_counts():
    assert drawn(channels={"*": 0.5, "layer3.*": 0.8, "layer3.2": 0.1}).widths == {
        "layer1.0": 5, "layer1.2": 5, "layer2.0": 7, "layer2.2": 7, "layer3.0": 16, "layer3.2": 2}


def test_they_go_with_multiples_roles_and_what_is_ignored():
    assert drawn(channels={"layer3.*": 0.33}, round_to=4).widths == {"layer3.0": 8, "layer3.2": 8}
    assert drawn(channels={"layer3.0": 0.5}, uniform=True).widths == {"layer3.0": 10, "layer3.2": 10}
    assert drawn(channels={"layer3.0": 0.5, "layer3.2": 0.8}, uniform=True).widths["layer3.2"] == 10
    assert drawn(channels={"layer1.*": 0.5}, ignore="layer2.0").widths == {"layer1.0": 5}


fractions = st.integers(2, 20).map(lambda n: n / 20)
bounds = st.dictionaries(st.sampled_from(["layer1.*", "layer2.*", "layer2.2", "layer3.*", "*"]),
                         st.one_of(fractions, st.tuples(fractions, fractions).map(lambda p: tuple(sorted(p)))),
                         min_size=1, max_size=3)


@settings(deadline=None, max_examples=120)
@given(bounds, st.sampled_from(["macs", "params"]), fractions, st.sampled_from([1, 4]), st.booleans(),
       st.sampled_from(["global", "uniform", "isomorphic"]))
def test_bounds_hold_beside_a_budget_which_is_never_exceeded(channels, kind, value, round_to, uniform, scope):
    try:
        plan = drawn(channels=channels, **{kind: value}, round_to=round_to, uniform=uniform, scope=scope)
    except BudgetError as error:
        assert "cannot be reached" in str(error) and "bounded by channels=" in str(error) or "one width" in str(error)
        return
    widths = np.array([plan.widths.get(name, group.size) for name, group in COUPLING.groups.items()])
    count = getattr(COUPLING.costs, kind)
    assert count(widths) <= value * count(COUPLING.widths)
    for name, (least, most) in bounds_of(channels, COUPLING.groups, alone=False).items():
        size = COUPLING.groups[name].size
        step = round_to if size >= round_to else 1
        ceiling = -(-size * most // 1)
        assert plan.widths[name] <= -(-ceiling // step) * step, name
        if not uniform:
            assert plan.widths[name] >= min(-(-size * least // 1), size // step * step), name


def test_what_a_bound_forbids_goes_first_and_what_it_keeps_stays():
    plan = drawn(macs=0.9, channels={"layer3.*": 0.5})
    assert plan.widths["layer3.0"] <= 10 and plan.widths["layer3.2"] <= 10
    assert plan.widths["layer1.0"] == 10 and plan.options["budget"] == {"macs": 0.9, "channels": {"layer3.*": 0.5}}
    kept = drawn(macs=0.4, channels={"layer1.*": (0.9, 1.0)})
    assert min(kept.widths["layer1.0"], kept.widths["layer1.2"]) >= 9
    assert min(drawn(macs=0.4).widths["layer1.0"], drawn(macs=0.4).widths["layer1.2"]) < 9


class Widths:
    """A price list that charges every group for its width."""

    step, digest, about = 1, "sha256:0", {}
    seconds = float(COUPLING.widths.sum())

    def priced(self, coupling, model, check=True):
        return Prices([Width((place,)) for place in range(len(coupling.groups))])


@dataclass(frozen=True)
class Width:
    groups: tuple[int, ...]

    def __call__(self, widths):
        return widths[..., self.groups[0]].astype(float)


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_bounds_hold_beside_a_time(scope):
    plan = drawn(latency=0.7, table=Widths(), scope=scope, channels={"layer3.*": 0.5, "layer1.*": (0.9, 1.0)})
    assert {plan.widths[f"layer3.{i}"] <= 10 and plan.widths[f"layer1.{i}"] >= 9 for i in (0, 2)} == {True}
    total = sum(plan.widths.get(name, group.size) for name, group in COUPLING.groups.items())
    assert total <= 0.7 * Widths.seconds < total + 1


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"channels": {}}, BudgetError, "channels must name at least one pattern"),
    ({"channels": {"layer1.*": 80}}, BudgetError,
     r"channels\['layer1.\*'\] must be the fraction kept, in \(0, 1\], got 80"),
    ({"channels": {"layer1.*": "x"}}, BudgetError, "must be the fraction kept"),
    ({"channels": {"layer1.*": (0.2, 0.5)}}, BudgetError, "a pair bounds a budget: write macs=0.5 as well"),
    ({"channels": {"layer1.*": (0.5, 0.2)}, "macs": 0.5}, BudgetError, r"got \(0.5, 0.2\); write \(0.2, 0.5\)"),
    ({"channels": {"layer1.*": (0.5,)}, "macs": 0.5}, BudgetError, "or a pair of the least and the most"),
    ({"channels": {"layr1.*": 0.5}}, InputError, "unknown group or layer 'layr1"),
    ({"channels": {"head": 0.5}}, InputError, "'head' is frozen"),
    ({"channels": {"layer1.*": 0.5}, "threshold": 0.1}, BudgetError, "not threshold= or widths="),
    ({"channels": {"layer1.*": 0.5}, "widths": {"layer1.0": 3}}, BudgetError, "not threshold= or widths="),
    ({"channels": {"*": (0.9, 1.0)}, "macs": 0.3}, BudgetError, "6 prunable groups, 6 of them bounded by channels="),
    ({"channels": {"layer1.0": (0.9, 1.0), "layer1.2": 0.5}, "macs": 0.6, "uniform": True}, BudgetError,
     "gives 'layer1.0' and its like one width, and channels= asks for at least 0.9 and at most 0.5"),
    ({"channels": 0.5, "macs": 0.5}, BudgetError, "exactly one of"),
])
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        drawn(**options)


def test_bounds_are_exact_fractions():
    assert bounds_of({"layer1.0": (0.1, 0.7)}, COUPLING.groups, alone=False) == {
        "layer1.0": (Fraction(1, 10), Fraction(7, 10))}


def test_the_command_line_takes_patterns():
    def options(*words):
        return arguments(parser().parse_args(["compress", "resnet18", *words]))

    assert options("--channels", "0.5")["channels"] == 0.5
    found = options("--macs", "0.5", "--channels", "layer1.*=0.8", "--channels", "layer4.*=0.2:0.5")
    assert (found["macs"], found["channels"]) == (0.5, {"layer1.*": 0.8, "layer4.*": (0.2, 0.5)})
    for bad in (("x",), ("a=1:2:3",), ("0.5", "0.6"), ("0.2:0.5",)):
        with pytest.raises(InputError, match="--channels must be one fraction, or a pattern"):
            options(*(word for text in bad for word in ("--channels", text)))
