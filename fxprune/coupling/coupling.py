"""The `Coupling`: what the analysis found, as one frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from fxprune.capture.capturing import MODULE, Captured
from fxprune.coupling.grouping import Grouping
from fxprune.coupling.replay import Replay
from fxprune.errors import InputError
from fxprune.ir.groups import Costs, CouplingGroup, Inputs, Signature
from fxprune.ir.units import Vector
from fxprune.rules.op import Policy


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which channels of a model must go together, and what they cost. It holds no weight and no activation.

    Attributes:
        groups: name -> `CouplingGroup`, in the order of execution; frozen ones included, with their reason.
        costs: MACs and parameters as functions of the groups' widths.
        signature: the structure that it was drawn from.
        inputs: the example inputs' description.
        policy: how splits into heads and groups are pruned.
        mode: ``"graph"`` or ``"module"``.
        unused: parameters that the captured graph does not reach.
    """

    groups: Mapping[str, CouplingGroup]
    costs: Costs
    signature: Signature
    inputs: Inputs
    policy: Policy
    mode: str
    unused: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    _captured: Captured | None = field(default=None, repr=False)
    _outcome: Replay | None = field(default=None, repr=False)
    _grouping: Grouping | None = field(default=None, repr=False)

    @property
    def prunable(self) -> Mapping[str, CouplingGroup]:
        """The groups that may lose channels."""
        return MappingProxyType({name: g for name, g in self.groups.items() if g.frozen is None})

    @property
    def widths(self) -> np.ndarray:
        """The groups' present widths, int64 [G]."""
        return np.array([g.size for g in self.groups.values()], np.int64)

    @property
    def why(self) -> str:
        """In module mode, what kept the model's Python from being traced; else nothing."""
        return self._captured.why if self._captured is not None and self.mode == MODULE else ""

    @property
    def eager(self) -> str:
        """Where the graph is what the model runs under ``torch.compile``, what kept it from being what the model runs
        without; else nothing."""
        return self._captured.eager if self._captured is not None else ""

    @property
    def graph(self) -> nx.Graph:
        """The coupling as a networkx graph (see `fxprune.coupling.graph`)."""
        from fxprune.coupling.graph import graph

        self._recorded("graph")
        return graph(self)

    def explain(self, a: str, b: str) -> str:
        """Why two layers are coupled: the chain of operators between them, or that nothing couples them."""
        from fxprune.coupling.explanation import explain

        self._recorded("explain")
        return explain(self, a, b)

    def report(self, format: str = "text") -> str:
        """The coupling groups as a table."""
        from fxprune.report.table import coupling_table

        return coupling_table(self, format)

    def to_html(self, path: str | os.PathLike, plan: Any = None, title: str = "Coupling groups") -> None:
        """The network drawn, as one page; with a plan, each group's width before and after."""
        from fxprune.report.html import to_html

        to_html(self, path, plan, title)

    def removed(self, kept: Mapping[str, Any], vector: Vector) -> np.ndarray:
        """Which indices of a dim vector go under a plan; ``kept`` maps group names to the ordinals that stay."""
        lost = self._lost(kept)
        free = vector >= 0
        out = np.zeros(len(vector), bool)
        out[free] = lost[self._outcome.closure.channel[vector[free]]]
        return out

    def _lost(self, kept: Mapping[str, Any]) -> np.ndarray:
        """Per channel, whether it goes."""
        grouping = self._grouping
        ends = np.cumsum([group.size for group in self.groups.values()], dtype=np.int64)
        gone = np.zeros(ends[-1] if len(ends) else 0, bool)
        starts = dict(zip(self.groups, [0, *ends.tolist()], strict=False))
        for name in kept.keys() & starts.keys():
            here = gone[starts[name]:starts[name] + self.groups[name].size]
            here[:] = True
            here[np.asarray(kept[name], np.int64)] = False
        placed = grouping.group >= 0
        lost = np.zeros(len(placed), bool)
        first = np.array(list(starts.values()), np.int64)
        lost[placed] = gone[first[grouping.group[placed]] + grouping.ordinal[placed]]
        return lost

    def _recorded(self, what: str) -> None:
        """What was read back from a file has no recorded run to look at."""
        if self._outcome is None:
            raise InputError(f"{what} needs the recorded run, which pickling leaves out; write coupling = "
                             "fxprune.analyze(model) and ask that one")

    def __getstate__(self) -> dict[str, Any]:
        """What a file may hold: groups and costs, but nothing of the user's classes nor of the recorded run."""
        return {**vars(self), "_captured": None, "_outcome": None, "_grouping": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Coupling":
        return self

    def __repr__(self) -> str:
        prunable = len(self.prunable)
        return f"Coupling({len(self.groups)} groups, {prunable} prunable, {self.mode} mode)"

    def _repr_html_(self) -> str:
        from fxprune.report.notebook import coupling_html

        return coupling_html(self)
