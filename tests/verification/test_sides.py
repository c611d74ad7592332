"""A difference is judged by what rounding does to that value, and no value loosens the next."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import VerificationError
from fxprune.verification.ledger import Ledger

X = torch.randn(2, 3, 8, 8)


class Gated(nn.Module):
    """The gate's input is a mean over what has just been normalised: zero, but for rounding."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16)
        self.gate, self.b = nn.Linear(16, 16), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.norm(self.a(x))
        return self.b(y * self.gate(F.adaptive_avg_pool2d(y, 1).flatten(1)).sigmoid()[:, :, None, None])


def damaged(small, words, change):
    """Every value of a node is changed before it is used."""
    node = next(n for n in small.graph.nodes if words in n.name)
    with small.graph.inserting_after(node):
        wrong = small.graph.call_function(change, (node,))
    node.replace_all_uses_with(wrong, delete_user_cb=lambda user: user is not wrong)
    node.name, wrong.name = "right", node.name
    small.recompile()
    return small


def plus(value):
    return value + 1e-9


def times(value):
    return value * 1.00001


@pytest.mark.parametrize("seed", range(4))
def test_means_that_are_zero_by_construction_agree(seed):
    torch.manual_seed(seed)
    proof = fxprune.record(fxprune.compress(Gated(), X, channels=0.5, criterion="random")).verification
    assert proof.max_error <= proof.tolerance == 1e-6


@pytest.mark.parametrize(("words", "change"), [("adaptive_avg", plus), ("gate", times), ("sigmoid", times),
                                               ("mul", times), ("norm", times), ("b", times)])
def test_what_rounding_does_to_one_value_excuses_no_other(words, change):
    torch.manual_seed(0)
    model = Gated()
    plan = fxprune.plan(fxprune.analyze(model, X), model, channels=0.5)
    small = damaged(fxprune.apply(model, plan, verify=False), words, change)
    with pytest.raises(VerificationError, match=f"node '{words}.*' must equal the masked original to 1e-06"):
        fxprune.verify(model, small, plan)


def test_a_value_of_a_lower_dtype_has_its_tolerance_and_no_other_has():
    ledger, ones = Ledger(1e-6), torch.ones(3)
    ledger.compare("low", ones, ones + 1e-5, "a test")
    assert (ledger.worst, ledger.allowed) == ("low", 1e-4)
    with pytest.raises(VerificationError, match="to 1e-06"):
        ledger.compare("high", ones.double(), ones.double() + 1e-5, "a test")


def test_the_worst_is_what_came_closest_to_its_own_tolerance():
    ledger, ones = Ledger(1e-6), torch.ones(3)
    ledger.compare("low", ones, ones + 1e-5, "a test")
    ledger.compare("high", ones.double(), ones.double() + 9e-7, "a test")
    assert ledger.worst == "high" and ledger.error == pytest.approx(9e-7) and ledger.allowed == 1e-6
    ledger.compare("higher", ones.double(), ones.double(), "a test")
    assert ledger.worst == "high" and ledger.count == 3


def test_rounding_is_the_least_that_a_value_is_measured_by():
    ledger = Ledger(1e-6)
    ledger.compare("mean", torch.tensor([1e-17]).double(), torch.tensor([3e-17]).double(), "a test", rounding=1e-15)
    with pytest.raises(VerificationError, match="differs by"):
        ledger.compare("mean", torch.tensor([1e-17]).double(), torch.tensor([3e-15]).double(), "a test", rounding=1e-15)


class Counted(nn.Module):
    """`bincount` has no meta kernel, so that this is captured on true tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.a(x)) * torch.bincount((x[:, 0, 0, 0] > 0).long(), minlength=2)[:1].clamp(max=1)


def two_rows_alone(value):
    if len(value) != 2:
        raise ValueError("not this batch")
    return value


def test_a_result_that_stops_at_another_batch_is_wrong_where_the_captured_graph_runs():
    torch.manual_seed(0)
    model = Counted()
    plan = fxprune.plan(fxprune.analyze(model, X), model, channels=0.5)
    small = damaged(fxprune.apply(model, plan, verify=False), "b", two_rows_alone)
    with pytest.raises(VerificationError, match=r"the result must run where the original does \(train mode, batch 3\)"):
        fxprune.verify(model, small, plan)
