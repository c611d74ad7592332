"""The search: Optuna proposes, a plan is drawn and carried out, the user says what it is worth."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError, InputError, unknown
from fxprune.planning.batches import SAMPLES, Loss
from fxprune.planning.budget import Budget
from fxprune.planning.criteria import CRITERIA
from fxprune.planning.digest import digest_of
from fxprune.planning.scoring import as_data, check_model
from fxprune.planning.selection import Ignored, Wanted
from fxprune.planning.vote import VOTES
from fxprune.rewrite.recovery import METHODS
from fxprune.searching.candidates import Candidates, Choice, candidates_of
from fxprune.searching.found import PLAN, RECOVER, START, Found
from fxprune.searching.space import UNITS, Space
from fxprune.searching.studies import digest, require_optuna, study_of

Evaluate = Callable[..., float | Sequence[float]]
# Where no budget says how much is kept, the search begins at these shares of the MACs.
STARTS = (0.75, 0.5, 0.25)
# Trials that count: what failed or was given up by a dead worker does not.
DONE = ("COMPLETE", "PRUNED")


def search(model: nn.Module, coupling: Coupling, evaluate: Evaluate, *, budget: Mapping[str, float] | None = None,
           trials: int = 100, by: str = "group", criteria: Sequence[str] = ("l2",), votes: Sequence[str] = ("joint",),
           recoveries: Sequence[str | None] = (None,), data: Any = None, loss: Loss | None = None,
           samples: int | None = SAMPLES, groups: Wanted = "auto", ignore: Ignored = (), round_to: int = 1,
           min_channels: int = 1, least: float = 0.1, directions: Sequence[str] = ("maximize",),
           study: str | None = None, storage: Any = None, sampler: Any = None, pruner: Any = None,
           seed: int | None = None) -> Found:
    """Search for a better plan than the one that a criterion draws.

    Every trial is a plan: a share for each unit, scaled until the budget is met exactly, a criterion, a vote and a
    recovery. The search begins with the plans that `fxprune.plan` draws at this budget, one for each criterion, vote
    and recovery, so that it cannot end below them.

    Args:
        model: it is only read.
        coupling: `fxprune.analyze` of this model.
        evaluate: ``evaluate(small)``, or ``evaluate(small, report)``: a number, or several. ``report(value)`` tells
            Optuna's pruner how it goes, and ends the trial where that gives it up.
        budget: what every trial keeps: ``{"macs": 0.5}`` or ``{"params": 0.5}``. None where the cost is itself one of
            the values; then the search begins with plans at three quarters, a half and a quarter of the MACs.
        trials: how many are evaluated in all, over all workers and all times that the search was begun again.
        by: a share for each ``"group"``, ``"stage"`` (what comes before the first number of a name) or ``"role"``
            (groups with one width: see ``uniform`` of `fxprune.plan`).
        criteria, votes, recoveries: what is tried of each.
        data, loss, samples: for criteria and recoveries that read data.
        groups, ignore, round_to, min_channels: as for `fxprune.plan`.
        least: the smallest share that is drawn for a unit.
        directions: ``"maximize"`` or ``"minimize"``, for each value.
        study: its name. A study of that name in the storage is gone on with.
        storage: None (memory), an Optuna storage or a URL: ``sqlite:///search.db``, ``journal:///search.log``,
            ``grpc://host:port``. Workers that share one share the search.
        sampler: an Optuna sampler; ``TPESampler`` where None.
        pruner: an Optuna pruner; none where None.
        seed: of the default sampler; workers want different ones.

    Returns:
        What was found: ``found.best``, ``found.front``, ``found.plan()``, ``found.module()``.

    Raises:
        MissingExtraError: Optuna is not installed.
        InputError: an argument makes no sense, or the study is of something else.
        BudgetError: the budget cannot be reached.

    >>> import fxprune, torch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <...>
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x, coupling = torch.randn(64, 3), fxprune.analyze(net, torch.zeros(1, 3))
    >>> found = search(net, coupling, lambda small: -(small(x) - net(x)).square().mean().item(),
    ...                budget={"params": 0.5}, trials=4, seed=0)
    >>> len(found.trials), found.best.value >= found.starts[0].value
    (4, True)
    """
    optuna = require_optuna()
    check_model(coupling, model, "search")
    if by not in UNITS:
        raise InputError(unknown("unit of a search", by, UNITS))
    _check(trials, least, criteria, votes, recoveries, directions, pruner)
    asked = None if budget is None else _budget(budget)
    candidates = candidates_of(model, coupling, asked, by, criteria, votes, recoveries, least,
                               as_data(data, loss, samples), groups, ignore, round_to, min_channels)
    identity = {"weights": digest_of(model), "budget": budget, "by": by, "criteria": list(criteria),
                "votes": list(votes), "recoveries": list(recoveries), "units": digest([*candidates.space.units]),
                "round_to": round_to, "min_channels": min_channels, "least": least}
    made = study_of(study, storage, directions, identity, sampler or optuna.samplers.TPESampler(
        seed=seed), pruner or optuna.pruners.NopPruner())
    _run(made, candidates, evaluate, trials)
    return Found(made, candidates)


def _run(study: Any, candidates: Candidates, evaluate: Evaluate, trials: int) -> None:
    """Trials until there are enough, and all starts are among them."""
    starts = _starts(candidates)
    for name, (_, params) in starts.items():
        if not any(trial.user_attrs.get(START) == name for trial in study.get_trials(deepcopy=False)
                   if trial.state.name != "FAIL"):
            study.enqueue_trial(params, user_attrs={START: name})

    def objective(trial: Any) -> float | Sequence[float]:
        return _objective(trial, candidates, {name: choice for name, (choice, _) in starts.items()}, evaluate)

    while _count(study, DONE) < trials:
        study.optimize(objective, n_trials=1)
    for name, (_, params) in starts.items():
        # A worker that was killed may have taken one along.
        if not any(trial.user_attrs.get(START) == name and trial.state.name == "COMPLETE"
                   for trial in study.get_trials(deepcopy=False)):
            study.enqueue_trial(params, user_attrs={START: name})
            while not any(t.user_attrs.get(START) == name and t.state.name == "COMPLETE"
                          for t in study.get_trials(deepcopy=False)):
                study.optimize(objective, n_trials=1)


def _objective(trial: Any, candidates: Candidates, starts: Mapping[str, tuple[Choice, Budget | None]],
               evaluate: Evaluate) -> float | Sequence[float]:
    start = trial.user_attrs.get(START)
    drawn = _choice(trial, candidates.space)
    choice, budget = starts.get(start, (drawn, None))
    plan, small = candidates.carried_out(lambda now: now.plan(choice, budget), choice.recover)
    # Before it is evaluated: whatever becomes of the worker, the plan is known.
    trial.set_user_attr(PLAN, json.dumps(plan.to_dict()))
    trial.set_user_attr(RECOVER, choice.recover)
    arguments = [_Report(trial, may_end=start is None)] if _takes_report(evaluate) else []
    values = evaluate(small, *arguments)
    found = tuple(values) if isinstance(values, Sequence) else (values,)
    if len(found) != len(trial.study.directions):
        raise InputError(f"evaluate must return a value for each of directions={[*_said(trial.study)]}, got {values!r}")
    return [float(value) for value in found]


class _Report:
    """What ``evaluate`` calls with a value on its way."""

    def __init__(self, trial: Any, may_end: bool):
        self.trial, self.may_end, self.step = trial, may_end, 0

    def __call__(self, value: float) -> None:
        if len(self.trial.study.directions) > 1:
            raise InputError("report(value) is for a search of one value: Optuna prunes no others; leave it out")
        self.trial.report(float(value), self.step)
        self.step += 1
        if self.may_end and self.trial.should_prune():
            raise require_optuna().TrialPruned


def _takes_report(evaluate: Evaluate) -> bool:
    named = inspect.signature(evaluate).parameters.values()
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in named) > 1


def _choice(trial: Any, space: Space) -> Choice:
    shares = {unit: trial.suggest_float(f"kept: {unit}", space.least, 1.0) for unit in space.units}
    one: dict[str, Any] = {
        name: trial.suggest_categorical(name, list(options)) if len(options) > 1 else options[0]
        for name, options in (("criterion", space.criteria), ("vote", space.votes), ("recover", space.recoveries))
    }
    return Choice(shares, one["criterion"], one["vote"], one["recover"])


def _starts(candidates: Candidates) -> dict[str, tuple[tuple[Choice, Budget | None], dict[str, Any]]]:
    """The plans that `fxprune.plan` draws: their names, what they are, and the parameters that come nearest."""
    space = candidates.space
    budgets = [candidates.budget] if candidates.budget else [Budget.of(macs=share) for share in STARTS]
    found: dict[str, tuple[tuple[Choice, Budget | None], dict[str, Any]]] = {}
    for criterion in space.criteria:
        for vote in space.votes:
            for recover in space.recoveries:
                for budget in budgets:
                    choice = Choice(None, criterion, vote, recover)
                    params: dict[str, Any] = {f"kept: {unit}": share for unit, share in
                                              candidates.shares_of(candidates.plan(choice, budget)).items()}
                    params |= {name: value for name, value, options in (
                        ("criterion", criterion, space.criteria), ("vote", vote, space.votes),
                        ("recover", recover, space.recoveries)) if len(options) > 1}
                    name = f"{criterion}, {vote}, {recover}, {budget.kind}={float(budget.value):g}"
                    found[name] = (choice, budget), params
    return found


def _count(study: Any, states: Sequence[str]) -> int:
    return sum(trial.state.name in states for trial in study.get_trials(deepcopy=False))


def _said(study: Any) -> list[str]:
    return [direction.name.lower() for direction in study.directions]


def _budget(budget: Mapping[str, float]) -> Budget:
    if not isinstance(budget, Mapping) or len(budget) != 1 or budget.keys() - {"macs", "params"}:
        raise BudgetError(f"budget must be of macs or params, got {budget!r}; write budget={{\"macs\": 0.5}}, and give "
                          "a time as a second value of evaluate")
    (kind, value), = budget.items()
    return Budget.of(macs=value) if kind == "macs" else Budget.of(params=value)


def _check(trials: int, least: float, criteria: Sequence[str], votes: Sequence[str],
           recoveries: Sequence[str | None], directions: Sequence[str], pruner: Any) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise InputError(f"trials must be an integer >= 1, got {trials!r}; write trials=100")
    if not isinstance(least, int | float) or not 0 < least <= 1:
        raise InputError(f"least must be a share in (0, 1], got {least!r}; write least=0.1")
    for what, given, known in (("criterion", criteria, CRITERIA), ("vote", votes, VOTES),
                               ("recovery", recoveries, (None, *METHODS)),
                               ("direction", directions, ("maximize", "minimize"))):
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise InputError(f"{what}: a list is asked for, got {given!r}")
        for one in given:
            if one not in known:
                raise InputError(unknown(what, one, filter(None, known)))
    if pruner is not None and len(directions) > 1:
        raise InputError("Optuna prunes trials of one value only; leave pruner= out, or search for one value")
