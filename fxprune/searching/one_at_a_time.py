"""Sensitivity: what each unit's channels are worth, while all others stay whole. A search with a grid for a sampler."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import nn

from fxprune.capture.structure import deep_copy
from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError, unknown
from fxprune.ir.methods import provided
from fxprune.planning import Plan
from fxprune.planning.batches import SAMPLES, Loss
from fxprune.planning.digest import digest_of
from fxprune.planning.draw import plan as draw
from fxprune.planning.scoring import as_data, check_model
from fxprune.planning.selection import Ignored, Wanted
from fxprune.rewrite.recovery import METHODS
from fxprune.searching.candidates import Candidates, candidates_of
from fxprune.searching.found import PLAN
from fxprune.searching.space import UNITS
from fxprune.searching.studies import digest, require_optuna, study_of

if TYPE_CHECKING:
    import optuna

BASE = "whole"


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Values by unit and share.

    Args:
        study: Optuna's; every trial holds its plan.
        whole: the value of the original.
        values: unit -> share that is kept -> value, in falling order of shares.
    """

    study: "optuna.Study"
    whole: float
    values: Mapping[str, Mapping[float, float]]

    def report(self, format: str = "simple") -> str:
        """A row for each unit, the one whose loss is worst last."""
        shares = list(next(iter(self.values.values())))
        worst = sorted(self.values.items(), key=lambda item: -min(item[1].values()))
        rows = [(unit, *(f"{found[share]:.5g}" for share in shares)) for unit, found in worst]
        headers = (f"whole: {self.whole:.5g}", *(f"{share:g}" for share in shares))
        return str(tabulate(rows, headers, tablefmt=format, disable_numparse=True))

    def plot(self, path: Any = None) -> Any:
        """A curve for each unit, as a matplotlib figure, written where ``path`` names a file."""
        return provided(Sensitivity, "plot")(self, path)


def sensitivity(model: nn.Module, coupling: Coupling, evaluate: Any, *, kept: Sequence[float] = (0.75, 0.5, 0.25),
                by: str = "group", criterion: str = "l2", vote: str = "joint", recover: str | None = None,
                data: Any = None, loss: Loss | None = None, samples: int | None = SAMPLES, groups: Wanted = "auto",
                ignore: Ignored = (), round_to: int = 1, min_channels: int = 1, study: str | None = None,
                storage: Any = None) -> Sensitivity:
    """Cut one unit at a time, and see what that costs.

    Args:
        model, coupling: as for `fxprune.search`.
        evaluate: ``evaluate(small)``: a number, higher is better.
        kept: the shares of a unit's channels that are tried.
        by: ``"group"``, ``"stage"`` or ``"role"``.
        criterion, vote, recover, data, loss, samples: which channels stay, and what makes up for the others.
        groups, ignore, round_to, min_channels: as for `fxprune.plan`.
        study, storage: as for `fxprune.search`; workers that share a storage share the grid, and what was evaluated
            before is not evaluated again.

    Raises:
        MissingExtraError: Optuna is not installed.
        InputError: an argument makes no sense, or the study is of something else.
    """
    optuna = require_optuna()
    check_model(coupling, model, "sensitivity")
    if by not in UNITS:
        raise InputError(unknown("unit of a search", by, UNITS))
    if recover not in (None, *METHODS):
        raise InputError(unknown("recovery", recover, METHODS))
    shares = sorted({_share(value) for value in _listed(kept)}, reverse=True)
    candidates = candidates_of(model, coupling, None, by, (criterion,), (vote,), (recover,), min(shares),
                               as_data(data, loss, samples), groups, ignore, round_to, min_channels)
    grid: dict[str, Sequence[Any]] = {"unit": list(candidates.space.units), "kept": shares}
    identity = {"weights": digest_of(model), "kept": shares, "units": digest(grid["unit"]), "by": by,
                "criterion": criterion, "vote": vote, "recover": recover, "round_to": round_to}
    made = study_of(study, storage, ("maximize",), identity, optuna.samplers.GridSampler(grid, seed=0), None)
    if BASE not in made.user_attrs:
        made.set_user_attr(BASE, float(evaluate(deep_copy(model))))
    whole = len(grid["unit"]) * len(shares)

    def objective(trial: Any) -> float:
        unit, share = trial.suggest_categorical("unit", grid["unit"]), trial.suggest_categorical("kept", shares)
        plan, small = candidates.carried_out(lambda now: _plan(now, unit, share), recover)
        trial.set_user_attr(PLAN, json.dumps(plan.to_dict()))
        return float(evaluate(small))

    while len(_points(made)) < whole:
        made.optimize(objective, n_trials=1)
    points = _points(made)
    values = {unit: {share: points[unit, share] for share in shares} for unit in grid["unit"]}
    return Sensitivity(made, made.user_attrs[BASE], values)


def _plan(candidates: Candidates, unit: str, share: float) -> Plan:
    model, coupling = candidates.model, candidates.coupling
    names = candidates.space.units.get(unit)
    if names is None:  # the model's Python turned out to fix it
        return Plan.build(coupling.groups, {}, signature=coupling.signature, inputs=coupling.inputs,
                          digest=digest_of(model), aliases=coupling.evidence.shared, mode=coupling.mode,
                          policy=asdict(coupling.policy))
    options: dict[str, Any] = {"channels": dict.fromkeys(names, share)}
    name, = candidates.criteria
    return draw(coupling, model, criterion=candidates.criteria[name], vote=candidates.space.votes[0],
                round_to=candidates.frame.round_to, min_channels=candidates.frame.min_channels, **options)


def _points(study: Any) -> dict[tuple[str, float], float]:
    """Unit and share -> value, of the trials that are done."""
    return {(trial.params["unit"], trial.params["kept"]): trial.values[0]
            for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"}


def _listed(kept: Any) -> Sequence[Any]:
    if isinstance(kept, str) or not isinstance(kept, Sequence) or not kept:
        raise InputError(f"kept must list shares of a unit's channels, got {kept!r}; write kept=(0.75, 0.5, 0.25)")
    return kept


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"kept must list shares in (0, 1), got {value!r}; write kept=(0.75, 0.5, 0.25)")
    return float(value)
