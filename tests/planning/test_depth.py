"""Which branches a plan takes out."""

import pytest
import torch

import fxprune
from fxprune import BudgetError, InputError, UnsupportedError
from fxprune.planning.stairs import Prices
from tests.residual_nets import Nested, Pair, net

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def sized(factors, kind=Pair):
    """A network whose branches matter as much as these numbers say."""
    model = net(kind, blocks=len(factors))
    for block, factor in zip(model.blocks, factors, strict=True):
        for parameter in block.parameters():
            parameter.data.fill_(factor)
    return model


def drawn(model, **options):
    return fxprune.plan(fxprune.analyze(model, X), model, **options)


@pytest.mark.parametrize(("keep", "gone"), [(1, []), (0.76, []), (0.75, ["blocks.2"]), (0.74, ["blocks.2"]),
                                            (0.5, ["blocks.0", "blocks.2"]),
                                            (0.01, ["blocks.0", "blocks.2", "blocks.3"])])
def test_a_fraction_is_what_stays(keep, gone):
    plan = drawn(sized([0.2, 0.4, 0.1, 0.3]), depth=keep)
    assert list(plan.branches) == gone and not plan.keep
    assert plan.options["budget"] == {} and plan.options["depth"]["keep"] == keep
    assert list(plan.options["depth"]["scores"]) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]


def test_what_is_inside_goes_along():
    model = net(Nested, blocks=2)
    for parameter in model.blocks[1].parameters():
        parameter.data.mul_(1e-3)
    for parameter in model.blocks[1].inner.parameters():
        parameter.data.mul_(1e6)
    plan = drawn(model, depth=0.5, depth_criterion=lambda group, tensors: sum(
        tensors[m.name].abs().mean() for m in group.members if m.name.endswith("weight")).repeat(group.size))
    assert list(plan.branches) == ["blocks.1.inner", "blocks.1"]


def test_ignored_branches_stay():
    plan = drawn(sized([0.2, 0.4, 0.1, 0.3]), depth=0.5, ignore=["blocks.2.bn1"])
    assert list(plan.branches) == ["blocks.0", "blocks.3"]


def test_the_rest_of_a_budget_is_channels():
    """The budget is of the whole network, and met exactly."""
    model = sized([0.2, 0.4, 0.1, 0.3])
    coupling = fxprune.analyze(model, X)
    plan = fxprune.plan(coupling, model, macs=0.6, depth=0.75)
    assert list(plan.branches) == ["blocks.2"] and "blocks.2.conv1" not in plan.groups
    record = fxprune.record(fxprune.apply(model, plan))
    share = record.after.macs / record.before.macs
    assert 0.5 < share <= 0.6
    assert sum(plan.widths.values()) > sum(fxprune.plan(coupling, model, macs=0.6).widths[name]
                                           for name in plan.widths)


def test_auto_takes_branches_and_channels_from_one_list():
    model = sized([0.5, 0.5, 1e-3, 0.5])
    for macs, gone in ((0.9, ["blocks.2"]), (0.99, ["blocks.2"])):
        plan = drawn(model, macs=macs, depth="auto")
        assert list(plan.branches) == gone and plan.options["depth"]["keep"] == "auto"
    # All branches alike go as late as channels of an average score do.
    assert not drawn(sized([0.5] * 4), macs=0.9, depth="auto", criterion="random").branches


def test_plans_at_smaller_budgets_are_subsets():
    model = net(Pair, blocks=4)
    coupling = fxprune.analyze(model, X)
    before = None
    for macs in (0.9, 0.7, 0.5, 0.3, 0.15):
        plan = fxprune.plan(coupling, model, macs=macs, depth="auto", depth_criterion="depth_wise")
        assert coupling.costs_without(plan.branches).macs(_widths(coupling, plan)) <= macs * coupling.costs.macs(
            coupling.widths)
        assert before is None or before <= set(plan.branches)
        before = set(plan.branches)
    assert 0 < len(before) < 4  # one stays


def _widths(coupling, plan):
    import numpy as np
    return np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])


@pytest.mark.parametrize("options", [
    {"scope": "uniform"}, {"scope": "isomorphic"}, {"scope": "absolute", "per": "macs"}, {"per": "params"},
    {"uniform": True}, {"round_to": 2}, {"vote": "intersection"}])
def test_every_scope(options, recwarn):
    model = net(Pair, blocks=4)
    small = fxprune.compress(model, X, macs=0.4, depth="auto", **options)
    record = fxprune.record(small)
    assert record.after.macs <= 0.4 * record.before.macs and record.verification.ok


def test_per_macs_prices_a_branch_by_what_it_saves():
    """Of two branches that are worth as much, the dearer one goes."""
    model = net(Nested, blocks=2)
    alike = {"depth_criterion": lambda group, tensors: torch.ones(group.size)}
    plan = drawn(model, macs=0.7, depth="auto", per="macs", **alike)
    assert "blocks.0" in plan.branches or "blocks.1" in plan.branches


def test_of_the_original():
    model = net(Pair, blocks=4)
    first = fxprune.compress(model, X, depth=0.75)
    second = fxprune.compress(first, X, depth=0.5, of="original")
    assert len(fxprune.record(second).overall.plan.branches) == 2
    with pytest.raises(BudgetError, match="depth=1 of the first original's 4 branches is more than the 2 that are"):
        fxprune.compress(second, X, depth=1, of="original")


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"depth": 0}, BudgetError, r"depth must be the fraction .* got 0;"),
    ({"depth": 1.5}, BudgetError, r"got 1.5"), ({"depth": True}, BudgetError, "got True"),
    ({"depth": float("nan")}, BudgetError, "got nan"), ({"depth": "all"}, BudgetError, "got 'all'"),
    ({"depth": "auto", "channels": 0.5}, BudgetError, "within macs= or params=, got channels="),
    ({"depth": "auto", "threshold": 0.5}, BudgetError, "within macs= or params=, got threshold="),
    ({"depth_criterion": "cosine"}, InputError, "none is asked to go"),
    ({"depth": 0.5, "depth_criterion": "nothing"}, InputError, "got 'nothing'"),
    ({"depth": "auto", "scope": "absolute", "depth_criterion": "depth_wise"}, InputError, "must be of one criterion")])
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        drawn(net(Pair), **options)


def test_a_model_without_any():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    with pytest.raises(UnsupportedError, match="the model has none that may go"):
        drawn(model, depth=0.5)


def test_module_form():
    model = net(Pair)
    with pytest.raises(UnsupportedError, match="depth=0.5 is of a model without one: form=\"module\" keeps its Python, "
                                               "which adds each branch by itself; pass form=\"graph\", or leave"):
        fxprune.compress(model, X, depth=0.5, form="module")


@pytest.mark.parametrize(("depth", "said"), [(0.5, "0.5"), ("auto", "\"auto\"")])
@pytest.mark.parametrize("budget", [{"latency": 0.5}, {"latency_ms": 5.0}])
def test_latency_budgets(depth, said, budget):
    class Table:
        step = 1

        def digest(self):
            return ""

        def priced(self, coupling, model, check=True):
            return Prices(())

    kind, = budget
    with pytest.raises(BudgetError, match=f"depth={said} stands beside {kind}=, whose table knows layers by their "
                                          f"widths alone; write small = fxprune.compress.model, x, depth={said}"):
        drawn(net(Pair), depth=depth, table=Table(), **budget)
