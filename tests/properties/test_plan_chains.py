"""Plans in a row are one plan: carried out in one step it gives what they give one by one, or it is refused."""

import random

import pytest
import random_nets
import reference
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import example as tried
from hypothesis import strategies as st
from test_random_nets import _plan, programs, random_plan
from torch import nn

import fxprune
from fxprune.errors import FxpruneError, PlanError
from fxprune.ir.policy import Policy


def drawn(model, seed, policy, example):
    coupling = fxprune.analyze(model, example, policy=policy)
    return coupling, random_plan(coupling, model, seed)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs, st.integers(0, 1000), st.sampled_from(["dims", "whole"]), st.sampled_from(["within", "whole"]))
# A group that may be reordered in the first plan's result alone.
@tried([("cat", 0), ("slice_", 144), *[("activation", 0)] * 4, ("padded", 23)], 91, "dims", "within")
def test_one_step_gives_what_the_steps_give(program, seed, heads, grouped):
    torch.manual_seed(0)
    model, example, policy = random_nets.RandomNet(program), torch.randn(2, 3, 4, 4), Policy(heads, grouped)
    reference.randomise(model, seed)
    note(model.log)
    coupling, first = drawn(model, seed, policy, example)
    overall, last = first, None
    for step in range(random.Random(seed).randint(1, 3)):
        try:
            last = last or fxprune.apply(model, first, verify=False)
            _, later = drawn(last, seed + step + 1, policy, example)
            overall, last = overall.then(later, coupling), fxprune.apply(last, later, verify=False)
        except FxpruneError as refusal:
            note(refusal)
            return
        once = fxprune.apply(model, overall, verify=False)
        note({name: group.kept for name, group in overall.groups.items()})
        theirs, ours = last.state_dict(), once.state_dict()
        assert set(ours) >= {name for name, _ in model.named_parameters() if name in theirs}
        for name in ours.keys() & theirs.keys():
            assert torch.equal(ours[name], theirs[name]), name
        x = torch.randn(3, 3, 4, 4)
        for one, other in zip(once.eval()(x), last.eval()(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(2, 3)


def test_the_channels_and_the_way_are_kept():
    model, x = chain()
    coupling = fxprune.analyze(model, x)
    first = fxprune.plan(coupling, model, widths={"0": 6, "2": 4})
    small = fxprune.apply(model, first, verify=False)
    later = fxprune.plan(fxprune.analyze(small, x), small, widths={"0": 3})
    overall = first.then(later, coupling)
    assert overall.groups["0"].kept == tuple(first.groups["0"].kept[k] for k in later.groups["0"].kept)
    assert overall.groups["2"].kept == first.groups["2"].kept and overall.digest == first.digest
    assert overall.options["steps"] == (first.options, later.options)
    assert overall.groups["0"].scores == first.groups["0"].scores
    assert fxprune.Plan.from_dict(overall.to_dict()) == overall
    assert fxprune.verify(model, fxprune.apply(model, overall, verify=False), overall).ok


def test_orders_are_composed():
    model, x = chain()
    coupling = fxprune.analyze(model, x)
    first = _plan(coupling, model, {"0": [5, 1, 7, 2]})
    small = fxprune.apply(model, first, verify=False)
    later = _plan(fxprune.analyze(small, x), small, {"0": [3, 0]})
    overall = first.then(later, coupling)
    assert overall.groups["0"].kept == (2, 5)
    once, twice = fxprune.apply(model, overall, verify=False), fxprune.apply(small, later, verify=False)
    torch.testing.assert_close(once(x), twice(x))


def test_a_plan_of_another_model_is_refused():
    model, x = chain()
    coupling = fxprune.analyze(model, x)
    first = fxprune.plan(coupling, model, widths={"0": 6})
    with pytest.raises(PlanError, match=r"earlier one's result, in which '0.weight' is \[6, 3\], and it was drawn on "
                                        r"\[8, 3\]"):
        first.then(fxprune.plan(coupling, model, widths={"2": 3}), coupling)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(4, 4, 1, groups=2)
        self.c = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_what_only_becomes_free_by_the_first_plan_is_no_one_plan():
    torch.manual_seed(0)
    model, x, policy = Grouped(), torch.randn(2, 3, 4, 4), Policy(grouped="whole")
    coupling = fxprune.analyze(model, x, policy=policy)
    first = _plan(coupling, model, {"a": [0]})
    small = fxprune.apply(model, first, verify=False)
    assert small.b.groups == 1
    after = fxprune.analyze(small, x, policy=policy)
    later = _plan(after, small, {"a": [1]})
    with pytest.raises(PlanError, match="no one plan does what the two do: the channels of group 'a' were taken apart|"
                                        "no one plan does what the two do: what is left of 'a.weight'"):
        first.then(later, coupling)
