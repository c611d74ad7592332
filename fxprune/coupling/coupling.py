"""The `Coupling`: what the analysis found, as one frozen value."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from fxprune.coupling.explanation import explain
from fxprune.coupling.graph import graph
from fxprune.ir.branches import Branch
from fxprune.ir.costs import Costs
from fxprune.ir.evidence import Evidence
from fxprune.ir.example_inputs import Inputs
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.methods import provided
from fxprune.ir.policy import Policy
from fxprune.ir.signature import Signature


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which channels of a model must go together, and what they cost. It holds no weight and no activation, and
    pickles.

    Attributes:
        groups: name -> `CouplingGroup`, in the order of execution; frozen ones included, with their reason.
        costs: MACs and parameters as functions of the groups' widths.
        signature: the structure that it was drawn from.
        inputs: the example inputs' description.
        policy: how splits into heads and groups are pruned.
        mode: ``"graph"`` or ``"module"``.
        evidence: the recorded runs that it rests on.
        unused: parameters that the captured graph does not reach.
        unknown: operators without a rule, and where they stand in the user's source.
        bugs: rules that failed, each frozen where it did; empty, or worth a report.
        why: in module mode, what kept the model's Python from being traced; else nothing.
        eager: where the graph is what the model runs under ``torch.compile``, what kept it from being what the model
            runs without; else nothing.
        model: the name of its class.
        branches: name -> a residual branch that may go whole, in the order of execution; none in module mode.
    """

    groups: Mapping[str, CouplingGroup]
    costs: Costs
    signature: Signature
    inputs: Inputs
    policy: Policy
    mode: str
    evidence: Evidence
    unused: tuple[str, ...]
    unknown: Mapping[str, str]
    bugs: tuple[str, ...]
    why: str
    eager: str
    model: str = ""
    branches: Mapping[str, Branch] = field(default_factory=dict)

    @property
    def prunable(self) -> Mapping[str, CouplingGroup]:
        """The groups that may lose channels."""
        return MappingProxyType({name: g for name, g in self.groups.items() if g.frozen is None})

    @property
    def widths(self) -> np.ndarray:
        """The groups' present widths, int64 [G]."""
        return np.array([g.size for g in self.groups.values()], np.int64)

    def costs_without(self, branches: Iterable[str]) -> Costs:
        """What is left to pay for without these branches."""
        gone = [self.branches[name] for name in branches]
        if not gone:
            return self.costs
        nodes = {node for branch in gone for node in branch.dropped[0].nodes}
        return self.costs.without(nodes, {name for branch in gone for name in branch.tensors})

    @property
    def graph(self) -> nx.Graph:
        """The coupling as a networkx graph (see `fxprune.coupling.graph`)."""
        return graph(self)

    def explain(self, a: str, b: str) -> str:
        """Why two layers are coupled: the chain of operators between them, or that nothing couples them."""
        return explain(self, a, b)

    def report(self, format: str = "text") -> str:
        """The coupling groups as a table."""
        return str(provided(Coupling, "report")(self, format))

    def to_html(self, path: str | os.PathLike[str], plan: Any = None, title: str = "") -> None:
        """The network drawn, as one page; with a plan, each group's width before and after."""
        provided(Coupling, "to_html")(self, path, plan, title)

    def lost(self, kept: Mapping[str, Iterable[int]]) -> np.ndarray:
        """bool [channels of the evidence]: which go, where ``kept`` maps group names to the channels that stay."""
        ends = np.cumsum(self.widths)
        starts = dict(zip(self.groups, (ends - self.widths).tolist(), strict=True))
        gone = np.zeros(ends[-1] if len(ends) else 0, bool)
        for name in kept.keys() & starts.keys():
            here = gone[starts[name]:starts[name] + self.groups[name].size]
            here[:] = True
            here[np.asarray(kept[name], np.int64)] = False
        group, ordinal = self.evidence.group, self.evidence.ordinal
        placed = group >= 0
        lost = np.zeros(len(group), bool)
        lost[placed] = gone[(ends - self.widths)[group[placed]] + ordinal[placed]]
        return lost

    def __deepcopy__(self, memo: dict[int, Any]) -> "Coupling":
        return self

    def __repr__(self) -> str:
        prunable = len(self.prunable)
        return f"Coupling({len(self.groups)} groups, {prunable} prunable, {self.mode} mode)"

    def _repr_html_(self) -> str:
        return str(provided(Coupling, "_repr_html_")(self))
