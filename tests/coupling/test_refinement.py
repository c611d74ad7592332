"""The loop: couple, try, freeze what a trial refuses, and again. The trials are handed in."""

import pytest
import torch
from torch import nn

from fxprune.capture.capturing import capture
from fxprune.coupling.refinement import TRIALS, refine
from fxprune.errors import CaptureError
from fxprune.ir.policy import Policy


@pytest.fixture(scope="module")
def net():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def refined(net, *trials):
    return refine(net, capture(net, torch.zeros(1, 3)), Policy(), trials).coupling


def content(model, analysis):
    return {}


def test_what_a_trial_refuses_is_frozen_with_its_reason(net):
    seen = []

    def trial(model, analysis):
        seen.append(set(analysis.coupling.prunable))
        return {} if len(seen) > 1 else {"_1": "it holds a size"}

    coupling = refined(net, trial)
    assert seen == [{"0", "2"}, {"2"}]
    assert coupling.groups["0"].frozen.why == "it holds a size"
    assert set(coupling.prunable) == {"2"}


def test_calls_are_refused_by_number(net):
    number = next(i for i, call in enumerate(refined(net, content).evidence.calls) if call.node == "_3")
    coupling = refined(net, lambda model, analysis: {number: "it holds a size"})
    assert set(coupling.prunable) == {"0"}


def test_a_later_trial_is_asked_where_those_before_are_content(net):
    asked = []

    def second(model, analysis):
        asked.append(len(analysis.coupling.prunable))
        return {}

    refined(net, lambda model, analysis: {"_1": "no"} if "0" in analysis.coupling.prunable else {}, second)
    assert asked == [1]


def test_what_never_ends_is_refused(net):
    rounds = []

    def trial(model, analysis):
        rounds.append(1)
        return {f"node{len(rounds)}": "again"}

    with pytest.raises(CaptureError, match=f"still failed after {TRIALS} freezes .last: .*again"):
        refined(net, trial)
    assert len(rounds) == TRIALS
