"""The latency table: measured times of a model's layers over their widths, as data that is saved and reviewed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError
from fxprune.ir.files import write_text
from fxprune.latency.clock import cpu_threads
from fxprune.latency.entries import filled
from fxprune.latency.grid import LEVELS, Point, along, between, points
from fxprune.latency.layers import Layer, Length
from fxprune.latency.lookup_file import document, read
from fxprune.latency.samples import Sample
from fxprune.latency.stand import layers_at, model_digest, stand_of
from fxprune.latency.target import Target, machine
from fxprune.planning.budget import step_within
from fxprune.planning.stairs import Prices

# The level at which what is missing is measured.
COARSE = 1


@dataclass(frozen=True)
class LatencyTable:
    """What `latency_table` measured.

    Args:
        target: where, with nothing left open.
        machine: the processor, in words.
        backend: its name and version.
        model: a digest of the model's structure and of its inputs.
        step: widths should be multiples of it.
        stairs: whether it was found by measuring: then a width between two multiples costs what the upper one costs.
        whole: the model itself, end to end.
        idle: seconds that a call takes in which nothing is done, which a model pays for once and every layer alone; 0
            where it enters no runtime.
        entries: calls with their shapes -> their time.
        unpriced: nodes whose time is not known by layer, each with the reason; it counts as constant.
    """

    target: Target
    machine: str
    backend: str
    model: str
    step: int
    stairs: bool
    whole: Sample
    idle: float
    entries: Mapping[str, Sample]
    unpriced: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """``"sha256:…"`` of everything in it."""
        return f"sha256:{hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()}"

    @property
    def seconds(self) -> float:
        """What the whole model takes."""
        return self.whole.median

    @property
    def about(self) -> dict[str, Any]:
        """The target, as a plan holds it."""
        return self.target.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """As a JSON document: times in milliseconds, ``[median, lower quartile, upper quartile, passes]``."""
        return document(vars(self))

    def save(self, path: str | os.PathLike) -> None:
        """Write the table as JSON, whole or not at all.

        Raises:
            InputError: the folder is missing, or cannot be written to.
        """
        write_text(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", "the latency table",
                   InputError)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LatencyTable":
        """Read what `save` wrote. The file is not trusted: everything in it is checked.

        Raises:
            InputError: what is wrong, and where.
        """
        return cls(**read(path))

    def check(self, model: str, target: Target | None = None) -> None:
        """The table is of this model, on this machine and, where one is given, this target.

        Args:
            model: the digest of the model's structure and inputs.
            target: with nothing left open.

        Raises:
            InputError: it is of another one.
        """
        facts = [("model and inputs", self.model, model)]
        if not self.target.runner:  # whom a runner leads to, only its user knows
            facts.append(("machine", self.machine, machine(self.target.device)))
        if target is not None:
            facts += [(name, getattr(self.target, name), value) for name, value in target.to_dict().items()]
        for what, here, there in facts:
            if here != there:
                raise InputError(f"a latency table holds for the {what} that it was measured on: {here!r}, and this is "
                                 f"{there!r}; measure again with fxprune.latency_table, or pass table_check=False")

    def priced(self, coupling: Coupling, model: nn.Module, check: bool = True) -> Prices:
        """What the widths of a coupling cost; layers that the table lacks are measured now.

        Args:
            coupling: `fxprune.analyze` of the model.
            model: the model.
            check: refuse where the table is of another model or machine.

        Raises:
            InputError: it is.
            MeasurementError: what is missing cannot be measured.
        """
        if check:
            self.check(model_digest(coupling, self.target))
        layers = layers_at(coupling, model, self.target).layers
        return self.completed(coupling, model, layers).prices(layers, coupling.widths)

    def completed(self, coupling: Coupling, model: nn.Module, layers: Sequence[Layer]) -> "LatencyTable":
        """The table with entries for the layers that it lacks: measured now, coarsely."""
        missing = [layer for layer in layers if self._axes(layer) is None]
        if not missing:
            return self
        with cpu_threads(self.target.threads):
            stand = stand_of(model, coupling, self.target)
            new = dict(self.entries)
            for entries in filled(stand, missing, self.axes, COARSE, new, self.whole.median):
                new.update(entries)
        return replace(self, entries=new)

    def worked(self, sample: Sample) -> float:
        """What a layer that was timed alone adds to a model."""
        return max(sample.median - self.idle, 0.0)

    def time(self, layer: Layer) -> "LayerTime":
        """The time of a layer that it does not lack, over its groups' widths."""
        axes = self._axes(layer)
        assert axes is not None, layer.name

        def seconds(point: Point) -> float:
            return self.worked(self.entries[layer.program.key(point)])

        return LayerTime(layer, self.step if self.stairs else 1, between(axes, seconds))

    def prices(self, layers: Sequence[Layer], widths: np.ndarray) -> Prices:
        """What widths cost: what the layers do not explain of the whole model's time is constant; where they take
        longer alone than together, each costs its share.

        Args:
            layers: none that it lacks.
            widths: the full ones, int64 [G].
        """
        terms = [self.time(layer) for layer in layers]
        alone = float(sum(float(term(widths)) for term in terms))
        return Prices(terms, max(self.whole.median - alone, 0.0), min(self.whole.median / alone, 1.0) if alone else 1.0)

    def axes(self, layer: Layer, level: int) -> list[Point]:
        """The lengths at which a layer's axes are measured, at a level of fineness."""
        return [along(full, axis.base, axis.grain, self.step, level)
                for axis, full in zip(layer.axes, layer.full, strict=True)]

    def _axes(self, layer: Layer) -> list[Point] | None:
        """The measured lengths of a layer's axes, of the finest level that is whole."""
        for level in reversed(range(len(LEVELS))):
            axes = self.axes(layer, level)
            if all(layer.program.key(point) in self.entries for point in points(axes)):
                return axes
        return None

    def __repr__(self) -> str:
        return (f"LatencyTable({len(self.entries)} entries, {self.target}, step {self.step}, the whole model "
                f"{1000 * self.whole.median:.3g} ms)")


@dataclass(frozen=True, eq=False)
class LayerTime:
    """The time of one layer, as a `fxprune.planning.stairs.Term`.

    A width between two multiples of what ``step`` is in its group costs what the upper one costs.
    """

    layer: Layer
    step: int
    seconds: Callable[[Sequence[np.ndarray]], np.ndarray]

    @property
    def groups(self) -> tuple[int, ...]:
        """The places of the groups whose widths it depends on."""
        return self.layer.groups

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        """Seconds, float64 [...], at widths int64 [..., G]."""
        return self.seconds([self._paid(axis, widths, full)
                             for axis, full in zip(self.layer.axes, self.layer.full, strict=True)])

    def _paid(self, axis: Length, widths: np.ndarray, full: int) -> np.ndarray:
        unit = step_within((full - axis.base) // axis.grain, self.step) * axis.grain
        return np.minimum(axis.base + -(-(axis(widths) - axis.base) // unit) * unit, full)
