"""What a search found."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import nn

from fxprune.errors import InputError
from fxprune.ir.methods import provided
from fxprune.planning import Plan
from fxprune.results import attach, record
from fxprune.searching.candidates import Candidates
from fxprune.verification import check

if TYPE_CHECKING:
    import optuna

PLAN, RECOVER, START = "plan", "recover", "start"


@dataclass(frozen=True, eq=False)
class Found:
    """A study and the plans in it.

    Args:
        study: Optuna's, with all that it can do; every finished trial holds its plan as JSON, ``user_attrs["plan"]``.
        candidates: what plans are carried out on.
    """

    study: "optuna.Study"
    candidates: Candidates

    @property
    def trials(self) -> list[Any]:
        """The trials that were evaluated to the end, in their order."""
        return [trial for trial in self.study.get_trials(deepcopy=False)
                if trial.state.name == "COMPLETE" and PLAN in trial.user_attrs]

    @property
    def best(self) -> Any:
        """The best trial of one value.

        Raises:
            InputError: there are several values; take one of `front`.
        """
        if len(self.study.directions) > 1:
            raise InputError("several values have no best trial, but a front: found.front")
        sign = 1 if self.study.direction.name == "MAXIMIZE" else -1
        return max(self.trials, key=lambda trial: sign * trial.values[0])

    @property
    def front(self) -> list[Any]:
        """The trials that no other one beats in all values: the Pareto front, by its first value."""
        signs = [1 if direction.name == "MAXIMIZE" else -1 for direction in self.study.directions]
        values = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in self.trials]

        def beaten(mine: list[float]) -> bool:
            return any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in values)

        return sorted((trial for trial, mine in zip(self.trials, values, strict=True) if not beaten(mine)),
                      key=lambda trial: tuple(trial.values))

    @property
    def starts(self) -> list[Any]:
        """The trials that the search began with: the plans that `fxprune.plan` draws."""
        return [trial for trial in self.trials if START in trial.user_attrs]

    def plan(self, trial: Any = None) -> Plan:
        """The plan of a trial; of the best where None."""
        return Plan.from_dict(json.loads((trial or self.best).user_attrs[PLAN]))

    def module(self, trial: Any = None, verify: bool = True) -> nn.Module:
        """The compressed model of a trial (of the best where None), proven and recovered as it was evaluated.

        Raises:
            VerificationError: it does not compute the masked original.
        """
        trial = trial or self.best
        plan, candidates = self.plan(trial), self.candidates
        if not verify:
            return candidates.module(plan, trial.user_attrs[RECOVER])
        # The structure is proven with recovery off.
        plain = candidates.module(plan, None)
        proof = check(candidates.model, plain, plan, candidates.analysis)
        small = candidates.module(plan, trial.user_attrs[RECOVER]) if trial.user_attrs[RECOVER] else plain
        return attach(small, replace(record(small), verification=proof))

    def report(self, format: str = "simple") -> str:
        """Where it began, and the best, or the front."""
        best = self.front if len(self.study.directions) > 1 else [self.best]
        rows = [(("start" if START in trial.user_attrs else "found"), trial.number,
                 *(f"{value:.6g}" for value in trial.values), _said(trial))
                for trial in {one.number: one for one in (*self.starts, *best)}.values()]
        names = [f"value {place}" for place in range(1, len(self.study.directions) + 1)]
        return str(tabulate(rows, ("", "trial", *names, "how"), tablefmt=format, disable_numparse=True))

    def plot(self, path: Any = None) -> Any:
        """Values trial by trial, or the front of two values, as a matplotlib figure."""
        return provided(Found, "plot")(self, path)

    def __repr__(self) -> str:
        return f"Found({len(self.trials)} trials in {self.study.study_name!r}, {len(self.starts)} of them starts)"


def _said(trial: Any) -> str:
    plan = json.loads(trial.user_attrs[PLAN])["options"]
    recover = trial.user_attrs[RECOVER]
    return f"{plan['criterion']}, {plan['vote']}" + (f", {recover}" if recover else "")
