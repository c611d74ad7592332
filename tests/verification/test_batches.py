"""The second batch size: what holds a graph to one batch is said, and what prunes wrong is not excused."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.verification import validation as passes


class Held(nn.Module):
    """Python makes a number of the batch size, and nothing says how."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.a(x)
        return self.b(x * len({2: "of two", 3: "of three"}.get(int(x.shape[0]), "of many")))


class Branching(nn.Module):
    """Python decides on the batch size: a guard."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.a(x)
        return self.b(x if x.shape[0] > 2 else x * 2)


def test_a_batch_size_that_python_made_concrete_is_said():
    small = fxprune.compress(Held(), torch.randn(2, 3, 6), channels=0.5)
    batch, length, _ = fxprune.record(small).dimensions
    assert not batch.free and str(batch).startswith("x[0] fixed at 2: the number 6 in mul")
    assert length.compared == (3, 4)
    with pytest.raises(AssertionError, match="x of size 2 in dimension 0, which is fixed"):
        small(torch.randn(3, 3, 6))


def test_a_guard_speaks_at_run_time():
    small = fxprune.compress(Branching(), torch.randn(2, 6), channels=0.5)
    assert "fxprune: captured where" in fxprune.record(small).verification.notes[0]
    assert small(torch.randn(1, 6)).shape == (1, 4)
    try:
        small(torch.randn(3, 6))
    except AssertionError as error:
        assert "gt(size(0), 2) was False" in str(error) and "capture again" in str(error)
    else:
        raise AssertionError("the guard must refuse")


def test_sizes_that_the_result_refuses_are_run_once(monkeypatch):
    ran = []
    real = passes.Sides.run
    monkeypatch.setattr(passes.Sides, "run", lambda sides, mode, example, view: ran.append(
        (mode, len(example[0][0]), *sides.share)) or real(sides, mode, example, view))
    monkeypatch.setattr(passes, "HELD", 1 << 8)
    verification = fxprune.record(fxprune.compress(Branching(), torch.randn(2, 6), channels=0.5)).verification
    assert verification.runs == (("eval", 2), ("train", 2), ("eval", 1))
    refused = [k for _, batch, k, shares in ran if batch == 3 and shares > 1]
    assert refused and not any(refused)


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_values_that_do_not_fit_in_memory_are_compared_in_several_runs(monkeypatch, layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Conv2d(8, 4, 3))
    x = torch.randn(2, 3, 8, 8)
    plan = fxprune.plan(fxprune.analyze(model, x), model, channels=0.5)
    small = fxprune.apply(model, plan, verify=False)
    at_once = fxprune.verify(model, small, plan)
    monkeypatch.setattr(passes, "HELD", 1 << 12)
    in_shares = fxprune.verify(model, small, plan)
    assert in_shares.runs == at_once.runs == (("eval", 2), ("train", 3))
    assert in_shares.max_error < 1e-12 and in_shares.nodes >= at_once.nodes
    # A value that is wrong and goes nowhere is found in whichever run its node is compared.
    node = next(node for node in small.graph.nodes if node.target == layer)
    with small.graph.inserting_after(node):
        wrong = small.graph.call_function(torch.mul, (node, 1.001))
    node.name, wrong.name = "right", node.name
    small.recompile()
    with pytest.raises(fxprune.VerificationError, match="differs by"):
        fxprune.verify(model, small, plan)
