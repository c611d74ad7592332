"""Searching over plans: every trial meets the budget, none ends below where it began, and what was done is kept."""

import json
import time

import numpy as np
import optuna
import pytest
import torch
from fixed_widths import Even, InStep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fxprune
from fxprune.errors import BudgetError, InputError, MissingExtraError
from fxprune.planning.budget import Budget
from fxprune.searching import studies
from fxprune.searching.found import START
from fxprune.searching.space import units_of, widths_within


def cost(coupling, plan, kind="macs"):
    widths = np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
    count = getattr(coupling.costs, kind)
    return count(widths) / count(coupling.widths)


def test_every_trial_is_a_plan_that_meets_the_budget_and_the_best_is_not_below_the_start(net, coupling, nearness):
    found = fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, trials=12, seed=0)
    plans = [found.plan(trial) for trial in found.trials]
    assert len(plans) == 12 and all(0.35 < cost(coupling, plan) <= 0.5 for plan in plans)
    assert len({json.dumps(dict(plan.widths)) for plan in plans}) > 6
    start, = found.starts
    assert found.plan(start).keep == fxprune.plan(coupling, net, macs=0.5).keep
    assert start.value == nearness(fxprune.apply(net, fxprune.plan(coupling, net, macs=0.5)))
    assert found.best.value == max(trial.value for trial in found.trials) >= start.value
    small = found.module()
    assert fxprune.record(small).verification.ok and nearness(small) == found.best.value
    assert "start" in found.report() and f"{found.best.value:.6g}" in found.report()


def test_it_searches_among_criteria_votes_and_recoveries(net, coupling, nearness):
    data = [torch.randn(32, 6, generator=torch.Generator().manual_seed(2))]
    found = fxprune.search(net, coupling, nearness, budget={"params": 0.6}, trials=10, seed=0, data=data,
                           criteria=("l2", "wanda"), votes=("joint",), recoveries=(None, "least_squares"))
    assert len(found.starts) == 4
    chosen = {(found.plan(t).options["criterion"], t.user_attrs["recover"]) for t in found.trials}
    assert chosen >= {(c, r) for c in ("l2", "wanda") for r in (None, "least_squares")}
    best = found.module()
    assert fxprune.record(best).verification.ok and nearness(best) == pytest.approx(found.best.value)
    assert all(cost(coupling, found.plan(t), "params") <= 0.6 for t in found.trials)


def test_two_values_have_a_front(net, coupling, nearness):
    def both(small):
        return nearness(small), fxprune.record(small).after.macs

    found = fxprune.search(net, coupling, both, trials=10, seed=0, directions=("maximize", "minimize"))
    assert len(found.starts) == 3  # without a budget: at three shares
    for trial in found.front:
        assert not any(o.values[0] >= trial.values[0] and o.values[1] <= trial.values[1] and o.values != trial.values
                       for o in found.trials)
    assert {tuple(t.values) for t in found.front} == {tuple(t.values) for t in found.study.best_trials}
    with pytest.raises(InputError, match="several values have no best trial, but a front"):
        found.plan()


def test_optunas_pruners_end_trials_early_but_never_a_start(net, coupling, nearness):
    evaluated = []

    def evaluate(small, report):
        for _ in range(3):
            report(-1.0 - len(evaluated))  # always worse than the ones before
        evaluated.append(small)
        return nearness(small)

    found = fxprune.search(net, coupling, evaluate, budget={"macs": 0.5}, trials=6, seed=0,
                           criteria=("l2", "l1"), pruner=optuna.pruners.MedianPruner(n_startup_trials=0))
    states = [trial.state.name for trial in found.study.trials]
    assert states.count("PRUNED") >= 1 and len(states) == 6
    assert len(found.starts) == 2 and len(evaluated) == states.count("COMPLETE")


@pytest.mark.parametrize("storage", ["sqlite:///{}/search.db", "journal://{}/search.log"])
def test_a_study_is_gone_on_with(net, coupling, nearness, tmp_path, storage):
    place = storage.format(tmp_path)
    options = {"budget": {"macs": 0.5}, "study": "s", "storage": place, "seed": 0}
    first = [trial.value for trial in fxprune.search(net, coupling, nearness, trials=3, **options).trials]
    ran = []
    again = fxprune.search(net, coupling, lambda small: ran.append(1) or nearness(small), trials=5, **options)
    assert len(again.trials) == 5 and len(ran) == 2 and len(again.starts) == 1
    assert [t.value for t in again.trials[:3]] == first
    with pytest.raises(InputError, match=r"was begun with budget=\{'macs': 0.5\}, and this search has \{'macs': 0.4\}"):
        fxprune.search(net, coupling, nearness, trials=6, **{**options, "budget": {"macs": 0.4}})


def test_a_start_that_a_killed_worker_took_along_is_evaluated_after_all(net, coupling, nearness):
    kept = optuna.storages.InMemoryStorage()
    study, name = optuna.create_study(storage=kept, study_name="s", direction="maximize"), "l1, joint, None, macs=0.5"
    study.enqueue_trial({}, user_attrs={START: name})
    study.ask()  # it is running, for ever
    found = fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, criteria=("l2", "l1"), trials=2, study="s",
                           storage=kept, seed=0)
    assert sorted(t.user_attrs["start"] for t in found.starts) == [name, "l2, joint, None, macs=0.5"]


def test_the_same_choice_is_the_same_plan(net, coupling, nearness):
    one, two = (fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, trials=6, seed=3) for _ in range(2))
    assert [t.user_attrs["plan"] for t in one.trials] == [t.user_attrs["plan"] for t in two.trials]


def test_units(net, coupling, nearness):
    free = list(coupling.prunable.values())
    pairs = [("layer1.0", "layer1.2"), ("layer2.0", "layer2.2")]
    assert units_of(coupling, free, "stage") == dict(zip(("layer1", "layer2"), pairs, strict=True))
    assert units_of(coupling, free, "role") == {pair[0]: pair for pair in pairs}
    assert list(units_of(coupling, free, "group")) == ["layer1.0", "layer1.2", "layer2.0", "layer2.2"]
    found = fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, trials=4, by="role", seed=0)
    for trial in found.trials:
        widths = found.plan(trial).widths
        assert widths["layer1.0"] == widths["layer1.2"] and widths["layer2.0"] == widths["layer2.2"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.05, 1), min_size=4, max_size=4), st.integers(15, 100), st.sampled_from(["macs", "params"]),
       st.sampled_from([1, 4]))
def test_shares_are_scaled_until_the_budget_is_met(coupling, shares, percent, kind, round_to):
    budget, names = Budget.of(**{kind: percent / 100}), [name for name in coupling.groups if name != "head"]
    frame = Budget.of(macs=1, round_to=round_to)
    try:
        widths = widths_within(budget, dict(zip(names, shares, strict=True)), coupling, frame)
    except BudgetError:
        return
    count = getattr(coupling.costs, kind)
    full = np.array([widths.get(name, group.size) for name, group in coupling.groups.items()])
    assert count(full) <= budget.value * count(coupling.widths)
    if any(widths[name] < coupling.groups[name].size // round_to * round_to for name in names):
        # A step more of everything would exceed it.
        more = np.array([min(widths.get(name, group.size) + round_to, group.size)
                         for name, group in coupling.groups.items()])
        assert count(more) > budget.value * count(coupling.widths)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"budget": {"latency": 0.5}}, BudgetError, "give a time as a second value of evaluate"),
    ({"budget": {"macs": 5}}, BudgetError, "macs must be the fraction kept"),
    ({"trials": 0}, InputError, "trials must be"),
    ({"by": "layer"}, InputError, "unknown unit of a search 'layer'"), ({"least": 0}, InputError, "least must be"),
    ({"criteria": ("l3",)}, InputError, "unknown criterion 'l3'"), ({"votes": "joint"}, InputError, "a list is asked"),
    ({"recoveries": ("magic",)}, InputError, "unknown recovery"), ({"directions": ("up",)}, InputError, "direction"),
    ({"storage": "search.db"}, InputError, "storage must be an Optuna storage or a URL, got 'search.db'"),
    ({"storage": "sqlite:////nowhere/at/all.db"}, InputError, "could not be opened"),
    ({"directions": ("maximize", "minimize")}, InputError, "evaluate must return a value for each of directions"),
    ({"directions": ("maximize",) * 2, "pruner": optuna.pruners.MedianPruner()}, InputError, "one value only"),
    ({"budget": {"macs": 0.0001}}, BudgetError, "cannot be reached"),
])
def test_bad_input(net, coupling, nearness, options, error, message):
    with pytest.raises(error, match=message):
        fxprune.search(net, coupling, nearness, **{"budget": {"macs": 0.5}, "trials": 2, **options})


def test_what_evaluate_raises_is_not_swallowed(net, coupling):
    def evaluate(small):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        fxprune.search(net, coupling, evaluate, budget={"macs": 0.5}, trials=3)


def test_without_optuna_it_says_what_to_install(net, coupling, nearness, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fxprune\[search\]'"):
        fxprune.search(net, coupling, nearness)
    assert studies.HEARTBEAT < studies.GRACE


def test_the_result_has_the_form_that_the_coupling_was_analysed_for(net, nearness):
    coupling = fxprune.analyze(net, torch.zeros(2, 6), form="module")
    found = fxprune.search(net, coupling, nearness, budget={"params": 0.6}, trials=2, seed=0)
    small = found.module()
    assert type(small) is type(net) and fxprune.record(small).verification.ok and nearness(small) == found.best.value


def test_the_model_is_only_read(net, coupling, nearness):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, trials=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_plots(net, coupling, nearness, tmp_path):
    pytest.importorskip("matplotlib")
    one = fxprune.search(net, coupling, nearness, budget={"macs": 0.5}, trials=4, seed=0)
    ax, = one.plot(tmp_path / "one.png").axes
    steps = next(line for line in ax.lines if line.get_label() == "best so far")
    assert list(steps.get_ydata())[-1] == one.best.value and (tmp_path / "one.png").stat().st_size > 1000

    def both(small):
        return nearness(small), time.process_time()

    two = fxprune.search(net, coupling, both, trials=5, seed=0, directions=("maximize", "minimize"))
    front = next(line for line in two.plot().axes[0].lines if line.get_label() == "front")
    assert len(front.get_xdata()) == len(two.front)


@pytest.mark.parametrize("by", ["group", "role", "stage"])
@pytest.mark.parametrize("kind", [Even, InStep])
def test_a_plan_that_the_form_cannot_carry_out_is_drawn_again(kind, by):
    torch.manual_seed(0)
    net, x = kind().eval(), torch.randn(4, 6)
    coupling = fxprune.analyze(net, x, form="module")
    assert list(coupling.prunable) == ["into", "mid"]
    seen = []
    found = fxprune.search(net, coupling, lambda small: float(seen.append(small) or len(seen)), by=by,
                           budget={"params": 0.5}, trials=6, least=0.6, seed=0)
    plans = [found.plan(trial) for trial in found.trials]
    assert len(plans) == 6 and all(cost(coupling, plan, "params") <= 0.5 for plan in plans)
    if kind is Even:  # all of it stays where its number would come out wrong
        assert {plan.widths["into"] % 2 for plan in plans} == {0} and 12 in {plan.widths["into"] for plan in plans}
    else:
        assert {plan.channels["into"] == plan.channels["mid"] for plan in plans} == {True}
    assert [(type(small), small.mid.out_features) for small in seen] == [(kind, plan.widths["mid"]) for plan in plans]
    small = found.module()
    assert fxprune.record(small).verification.ok and small.mid.out_features == seen[-1].mid.out_features


def test_what_a_search_may_not_cut_stays_whole_in_a_plan_that_is_drawn_again():
    torch.manual_seed(0)
    net, x = InStep().eval(), torch.randn(4, 6)
    coupling = fxprune.analyze(net, x, form="module")
    with pytest.raises(BudgetError, match="the model's own Python fixes all that this search may cut"):
        fxprune.search(net, coupling, lambda small: 0.0, ignore=["mid"], budget={"params": 0.7}, trials=2, seed=0)
