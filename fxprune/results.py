"""What was done: the record that every result carries."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError, PlanError
from fxprune.ir.example_inputs import Inputs
from fxprune.ir.methods import provided
from fxprune.planning import Plan
from fxprune.planning.timing import Timing
from fxprune.rewrite.attachment import attach_to, attached_to
from fxprune.rewrite.folding import Fold
from fxprune.rewrite.recovery import Recovery
from fxprune.verification import Verification
from fxprune.verification.input_dimensions import InputDimension


@dataclass(frozen=True)
class Size:
    """What a model costs.

    Args:
        params: parameters that the captured graph uses.
        macs: multiply-accumulates of one forward pass on the example inputs.
        widths: output channels by layer.
    """

    params: int
    macs: int
    widths: Mapping[str, int]

    @classmethod
    def of(cls, coupling: Coupling, widths: np.ndarray, branches: Iterable[str] = ()) -> "Size":
        """The size at these widths of the groups (int64 [G]), without these branches."""
        costs = coupling.costs_without(branches)
        return cls(costs.params(widths), costs.macs(widths), costs.widths(widths))


@dataclass(frozen=True, eq=False)
class Overall:
    """What several compressions in a row came to, from the first original on.

    Args:
        steps: how many compressions.
        before, after: `Size` of the first original and of the last result.
        coupling: the first original's.
        plan: leads from the first original there in one step; None where no one plan does.
        why: then, why not.
        folded: whether constants were folded in any step.
    """

    steps: int
    before: Size
    after: Size
    coupling: Coupling
    plan: Plan | None
    why: str = ""
    folded: bool = False

    def __str__(self) -> str:
        shares = (f"{a / b:.1%} of the {what}" for what, a, b in (
            ("MACs", self.after.macs, self.before.macs), ("parameters", self.after.params, self.before.params)) if b)
        how = "one plan does the same" if self.plan is not None else self.why
        return f"{', '.join(shares)} of the first original after {self.steps} compressions ({how})"


@dataclass(frozen=True, eq=False)
class Record:
    """What `compress` did.

    Args:
        plan: what was kept.
        coupling: the analysis that it rests on.
        before, after: `Size` of the original and of the result.
        verification: the proof, or None where ``verify=False``.
        folds: what was folded into which layer, and how exactly.
        drift: with folds, how far the result is from the original with its removed channels held at their constants,
            relative to the largest output.
        recovery: what made up for what was cut, layer by layer, or None.
        latency: with a latency budget, what was asked, predicted and measured; else None.
        overall: where a result was compressed again, what is left of the first original; else None.
        mode: ``"graph"``, or ``"module"`` where the result is a smaller copy of the model's own class.
    """

    plan: Plan
    coupling: Coupling
    before: Size
    after: Size
    verification: Verification | None = None
    folds: tuple[Fold, ...] = ()
    drift: float = 0.0
    recovery: Recovery | None = None
    latency: Timing | None = None
    overall: Overall | None = None
    mode: str = "graph"

    @classmethod
    def of(cls, coupling: Coupling, plan: Plan, folds: tuple[Fold, ...] = (), drift: float = 0.0,
           mode: str = "graph") -> "Record":
        """The record of a plan that was carried out."""
        after = np.array([len(plan.groups[name].kept) if name in plan.groups else group.size
                          for name, group in coupling.groups.items()], np.int64)
        return cls(plan, coupling, Size.of(coupling, coupling.widths), Size.of(coupling, after, plan.branches), None,
                   folds, drift, mode=mode)

    def following(self, earlier: "Record | None", ordered: bool = False) -> "Record":
        """This record, with what it came to together with the one of the model that was compressed.

        Args:
            earlier: that model's record, or None where it had none.
            ordered: whether its channels were reordered in between.
        """
        if earlier is None:
            return self
        start = earlier.overall or Overall(1, earlier.before, earlier.after, earlier.coupling, earlier.plan,
                                           folded=bool(earlier.folds))
        plan, why = None, start.why
        if ordered and not why:
            why = "no one plan does the same: channels were ordered in between, for training"
        elif start.plan is not None:
            try:
                plan = start.plan.then(self.plan, start.coupling)
            except PlanError as error:
                why = str(error)
        return replace(self, overall=replace(start, steps=start.steps + 1, after=self.after, plan=plan, why=why,
                                             folded=start.folded or bool(self.folds)))

    @property
    def inputs(self) -> Inputs:
        """The example inputs' description; ``inputs.inferred`` says how they were inferred, if they were."""
        return self.coupling.inputs

    @property
    def outputs(self) -> dict[str, tuple[tuple[int, int, int], ...]]:
        """The outputs that shrank, as ``outputs=`` let them: name -> (dimension, before, after) of each such dimension,
        as of the example inputs."""
        evidence = self.coupling.evidence
        lost = self.coupling.lost({name: group.kept for name, group in self.plan.groups.items()})
        found = {}
        for name, number in zip(evidence.tapes[0].output_names, evidence.tapes[0].outputs, strict=True):
            vectors = evidence.dims[0].get(number, ())
            gone = [int(lost[evidence.channel[vector[vector >= 0]]].sum()) for vector in vectors]
            found[name] = tuple((d, len(vector), len(vector) - n)
                                for d, (vector, n) in enumerate(zip(vectors, gone, strict=True)) if n)
        return {name: dims for name, dims in found.items() if dims}

    @property
    def dimensions(self) -> tuple[InputDimension, ...]:
        """Which dimensions of the inputs are free, proven at two lengths, and which are fixed, and why; none of them
        where nothing was verified."""
        return self.verification.dimensions if self.verification is not None else ()

    def report(self, format: str = "text", layers: bool = True) -> str:
        """Before and after, how it was checked, and by layer the width and, with a latency budget, the time.

        Args:
            format: ``"text"`` or ``"md"``.
            layers: whether the tables by layer are shown.
        """
        return str(provided(Record, "report")(self, format, layers))

    def to_html(self, path: str | os.PathLike[str], title: str = "") -> None:
        """The network drawn, as one page, with each group's width before and after, and the time by layer."""
        provided(Coupling, "to_html")(self.coupling, path, self.plan, title, self.latency)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Record":
        return self

    def __repr__(self) -> str:
        before, after = self.before, self.after
        shares = (f"{a / b:.1%} of the {what}" for what, a, b in
                  (("MACs", after.macs, before.macs), ("parameters", after.params, before.params)) if b)
        checked = "not verified" if self.verification is None else "verified"
        return f"Record({', '.join(shares)}, {self.mode} mode, {checked})"

    def _repr_html_(self) -> str:
        return str(provided(Record, "_repr_html_")(self))


def attach(small: nn.Module, record: Record) -> nn.Module:
    """The same module, with its record."""
    attach_to(small, record)
    return small


def found_record(module: nn.Module) -> Record | None:
    """A module's record, or None."""
    found: Record | None = attached_to(module)
    return found


def record(small: nn.Module) -> Record:
    """What was done to make ``small``.

    Raises:
        InputError: the module was not made by `compress` or `apply`.
    """
    found = found_record(small) if isinstance(small, nn.Module) else None
    if found is None:
        raise InputError(f"record needs the module that fxprune.compress or fxprune.apply returned, got "
                         f"{type(small).__name__} without a record; keep that module, or read its plan.json")
    return found
