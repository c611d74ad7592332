"""Hold a result to its time: draw, emit, measure in turn with the original, correct, at most a few times.

The table says T̂ for a plan. What the emitted module takes, measured, says by which factor models are slower than their
layers add up to: a = measured / T̂. The next plan is drawn with that factor. Once plans lie on both sides of what was
asked, the next one lies between the nearest two, no group wider or narrower than in both: what the table does not know
of the layers that they have in common is in both of their times. The measured time decides, not the table's.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError, InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.latency.building import latency_table
from fxprune.latency.clock import cpu_threads
from fxprune.latency.entries import Wanted, batches, measured, steady
from fxprune.latency.layers import Layer
from fxprune.latency.lookup import LatencyTable
from fxprune.latency.samples import Sample
from fxprune.latency.stand import Stand, layers_at, model_digest, stand_of
from fxprune.latency.target import Target, inputs_for, placed
from fxprune.passes import carry_out
from fxprune.planning import Plan
from fxprune.planning.budget import Budget
from fxprune.planning.cut_options import CutOptions
from fxprune.planning.draw import plan as draw
from fxprune.planning.timing import TOLERANCE, LayerTiming, Timing, check_beside
from fxprune.rewrite.folding import Folded

# How many plans are carried out at most, the first and four that correct it; and how often the factors between two of
# them are halved for another one.
ATTEMPTS, HALVINGS = 5, 8
# What is asked of a plan that corrects another, in shares of what was asked of both: the middle of what may stand.
AIM = 1 - TOLERANCE / 3
# Where the table says that a time cannot be reached, it may be the table that is off: by so much, tried in this order.
OFF = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)
# Rounds of original and result in turn, at first; the noise above which they go on.
ROUNDS, STEADY = 11, 0.01


class Drawing(Protocol):
    """Draws the plan of a call by a factor, and within bounds by group beside those that the call has."""

    def __call__(self, correction: float, bounds: Mapping[str, Any] | None = None) -> Plan: ...


@dataclass(frozen=True)
class Asked:
    """A time that a result must keep: a fraction of the original's, or seconds."""

    fraction: float | None
    seconds: float | None

    @classmethod
    def of(cls, latency: float | None, latency_ms: float | None) -> "Asked":
        """What a call asks for.

        Raises:
            BudgetError: none or both, or a number that makes no sense.
        """
        value = float(Budget.of(latency=latency, latency_ms=latency_ms).value)
        return cls(value, None) if latency is not None else cls(None, value / 1000)

    def on(self, original: float) -> float:
        """Seconds, where the original takes so many."""
        return self.seconds if self.seconds is not None else (self.fraction or 0.0) * original

    def __str__(self) -> str:
        return f"latency={self.fraction:g}" if self.seconds is None else f"latency_ms={1000 * self.seconds:g}"


@dataclass(frozen=True, eq=False)
class Attempt:
    """A plan, carried out and measured. Seconds.

    Args:
        plan: what was drawn.
        raw: what the table says of it, at the speed that the machine has now where a share of the original is asked.
        correction: what it was drawn with.
        original: the original's median.
        time: the result's, and its quartiles.
        asked: what it should be.
    """

    plan: Plan
    raw: float
    correction: float
    original: float
    time: Sample
    asked: float

    @property
    def factor(self) -> float:
        """By which it was slower than the table says."""
        return self.time.median / self.raw

    @property
    def reached(self) -> float:
        """The time over what was asked."""
        return self.time.median / self.asked

    @property
    def not_above(self) -> bool:
        """Not above what was asked, beyond the spread and the tolerance."""
        return self.time.median <= self.asked or \
            self.time.low <= self.asked and self.time.median <= (1 + TOLERANCE) * self.asked

    @property
    def kept(self) -> bool:
        """Whether it is what was asked."""
        return self.not_above and self.time.median >= (1 - TOLERANCE) * self.asked


def timed_plan(model: nn.Module, analysis: Analysis, target: Target | None, cut: CutOptions
               ) -> tuple[Plan, Timing | None]:
    """The plan that a call asks for; where it asks for a time, one whose result takes that, and what was measured.

    Args:
        model, analysis: the original.
        target: where a time is measured; that of the table, or PyTorch on the CPU as it is set, where None.
        cut: the arguments of `fxprune.plan`. Where there is no table, one is measured.

    Raises:
        BudgetError: no plan came near enough; says what was reached.
        InputError: a target or a table that does not fit.
        MeasurementError: too much noise.
    """
    coupling, latency, latency_ms = analysis.coupling, cut.get("latency"), cut.get("latency_ms")
    if latency is None and latency_ms is None:
        _check_unused(target, cut)
        return draw(coupling, model, **cut), None
    asked = Asked.of(latency, latency_ms)
    table = _table(model, coupling, target, cut)
    table = table.completed(coupling, model, layers_at(coupling, model, table.target).layers)
    with cpu_threads(table.target.threads):
        stand = stand_of(model, coupling, table.target)
        tried, again = _attempts(asked, stand, model, analysis, {**cut, "table": table}, table.seconds)
        # No step leads from what was tried to what was asked: then the nearest one that is not above.
        under = [one for one in tried if one.not_above] if again else []
        best = tried[-1] if tried[-1].kept else max(under, key=lambda one: one.reached, default=None)
        if best is None:
            raise BudgetError(_missed(asked, tried))
        return best.plan, _timing(best, tried, stand, model, coupling, table)


def _check_unused(target: Target | None, cut: CutOptions) -> None:
    if target is not None or cut.get("table") is not None:
        raise InputError("target= and table= say where a time is measured, and no time is asked; write latency=0.5 or "
                         "latency_ms=12.0 as well")


def _table(model: nn.Module, coupling: Coupling, target: Target | None, cut: CutOptions) -> LatencyTable:
    """The table that was given, of the target that was given; one that is measured now where none was."""
    if target is not None and not isinstance(target, Target):
        raise InputError(f"target must be a fxprune.Target, got {type(target).__name__}")
    table = cut.get("table")
    if table is None:
        # Before minutes are spent on what cannot be asked.
        check_beside(cut)
        return latency_table(coupling, model, target)
    if not isinstance(table, LatencyTable):
        raise InputError(f"table must be a fxprune.LatencyTable, got {type(table).__name__}")
    if target is not None and cut.get("table_check", True):
        table.check(model_digest(coupling, table.target), target.resolved(coupling.inputs))
    return table


def _attempts(asked: Asked, stand: Stand, model: nn.Module, analysis: Analysis, cut: CutOptions, whole: float
              ) -> tuple[list[Attempt], bool]:
    """The plans that were tried, the last one kept if any is; and whether there was no other one to try."""
    # By pattern: a number would be a budget of its own, which cannot stand beside a time.
    given: Any = cut.get("channels") or {}

    def drawn(correction: float, bounds: Mapping[str, Any] | None = None) -> Plan:
        options: CutOptions = {**cut, "correction": correction}
        if bounds:
            # Of two that name a group, the last one counts.
            options["channels"] = {**given, **bounds}
        return draw(analysis.coupling, model, **options)

    tried: list[Attempt] = []
    plan: Plan | None = _nearest(drawn, cut.get("correction", 1.0))
    while plan is not None:
        small = carry_out(Folded(model), analysis, plan)
        tried.append(_measured(asked, stand, analysis.coupling, plan, small, whole))
        if tried[-1].kept or len(tried) == ATTEMPTS:
            return tried, False
        try:
            plan = _other(tried, drawn, analysis.coupling.groups)
        except BudgetError as error:
            raise BudgetError(_missed(asked, tried)) from error
    return tried, True


def _nearest(drawn: Drawing, correction: float) -> Plan:
    """The plan by this factor; where none is fast enough, by the nearest factor by which one is.

    Raises:
        BudgetError: none is, however far the table is off.
    """
    try:
        return drawn(correction)
    except BudgetError:
        for off in OFF:
            with suppress(BudgetError):
                return drawn(off * correction)
        raise


def _other(tried: Sequence[Attempt], drawn: Drawing, groups: Mapping[str, CouplingGroup]) -> Plan | None:
    """A plan that was not tried: by what the last one took, or, once plans lie on both sides of what was asked, by what
    the nearest of each side took; None where there is none."""
    below = max((one for one in tried if one.reached <= AIM), key=lambda one: one.reached, default=None)
    above = min((one for one in tried if one.reached > AIM), key=lambda one: one.reached, default=None)
    if below is None or above is None:
        plan = _nearest(drawn, tried[-1].factor / AIM)
        return plan if _same(plan, tried) is None else None
    between = _between(below, above, tried, drawn, groups)
    if between is not None:
        return between
    # One step is all that lies between them, and what it saves is too much: others, from either of its sides.
    for one, other in ((above, below), (below, above)):
        held = {name: bounds for name, bounds in _box(one.plan, one.plan, groups).items()
                if one.plan.widths.get(name) != other.plan.widths.get(name)}
        beside = _reachable(drawn, one.factor / AIM, held)
        if beside is not None and _same(beside, tried) is None:
            return beside
    return None


def _reachable(drawn: Drawing, correction: float, bounds: Mapping[str, Any]) -> Plan | None:
    """The plan by this factor within these bounds; None where the table says that nothing there is as fast."""
    with suppress(BudgetError):
        return drawn(correction, bounds)
    return None


def _between(below: Attempt, above: Attempt, tried: Sequence[Attempt], drawn: Drawing,
             groups: Mapping[str, CouplingGroup]) -> Plan | None:
    """A plan that was not tried, no group wider or narrower than in both of these; as if the time rose with the table's
    from the one to the other."""
    bounds = _box(below.plan, above.plan, groups)
    fast, slow = below.asked / below.raw, above.asked / above.raw
    way = (AIM - below.reached) / (above.reached - below.reached)
    correction = below.asked / (below.raw + way * (above.raw - below.raw))
    for _ in range(HALVINGS):
        plan = _reachable(drawn, correction, bounds)
        same = None if plan is None else _same(plan, tried)
        if plan is not None and same is None:
            return plan
        # A table's times may rise where widths fall, so that even the narrowest is not as fast as this factor asks.
        fast, slow = (correction, slow) if same is None or same.reached <= AIM else (fast, correction)
        correction = (fast + slow) / 2
    return None


def _box(one: Plan, other: Plan, groups: Mapping[str, CouplingGroup]) -> dict[str, tuple[float, float]]:
    """The least and the most that each group keeps in either, as fractions that name no width but that one."""
    widths = {name: sorted(plan.widths.get(name, group.size) for plan in (one, other))
              for name, group in groups.items() if not group.frozen}
    return {name: ((low - 0.5) / groups[name].size, (high - 0.5) / groups[name].size)
            for name, (low, high) in widths.items()}


def _same(plan: Plan, tried: Sequence[Attempt]) -> Attempt | None:
    return next((one for one in tried if one.plan.widths == plan.widths), None)


def _measured(asked: Asked, stand: Stand, coupling: Coupling, plan: Plan, small: nn.Module, whole: float) -> Attempt:
    """In turn with the original. A share of its time is compared round by round, so that what slows both cancels."""
    call = stand.backend.prepare(placed(small, stand.target), inputs_for(coupling.inputs, stand.target))

    def relative(times: np.ndarray) -> np.ndarray:
        return times[1] / times[0] if asked.seconds is None else times[1]

    times = steady([stand.model, call], lambda times: Sample.of(relative(times)).noise, "the model and the pruned one",
                   ROUNDS, STEADY, TOLERANCE)
    original = float(np.median(times[0]))
    time = Sample.of(relative(times)).times(original if asked.seconds is None else 1.0)
    options: Any = plan.options["latency"]
    raw = options["predicted_ms"] / 1000 / options["correction"]
    speed = original / whole if asked.seconds is None else 1.0
    return Attempt(plan, raw * speed, options["correction"], original, time, asked.on(original))


def _timing(best: Attempt, tried: Sequence[Attempt], stand: Stand, model: nn.Module, coupling: Coupling,
            table: LatencyTable) -> Timing:
    options: Any = best.plan.options["latency"]
    first = tried[0]
    return Timing(best.asked, best.correction * best.raw, best.time.median, (best.time.low, best.time.high),
                  best.original, first.raw / first.time.median, len(tried), str(stand.target), table.digest,
                  _layers(best, stand, model, coupling, table), dict(options["dead"]))


def _layers(best: Attempt, stand: Stand, model: nn.Module, coupling: Coupling, table: LatencyTable
            ) -> tuple[LayerTiming, ...]:
    """Every layer before and after; measured at its very widths, unless each would have to be compiled for that."""
    layers = layers_at(coupling, model, stand.target).layers
    table = table.completed(coupling, model, layers)
    prices, full = table.prices(layers, coupling.widths), coupling.widths
    widths = np.array([best.plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
    found: dict[str, Sample] = {}
    if not stand.backend.dear:
        entries = {entry.key: entry for entry in (Wanted(layer.program, layer.lengths(widths)) for layer in layers)}
        for batch in batches(list(entries.values())):
            found.update(measured(batch, stand, best.original))

    def timing(layer: Layer, term: Any) -> LayerTiming:
        sample = found.get(layer.program.key(layer.lengths(widths)))
        before, after = (prices.scale * float(term(each)) for each in (full, widths))
        return LayerTiming(layer.name, before, after, None if sample is None else prices.scale * table.worked(sample))

    return tuple(timing(layer, term) for layer, term in zip(layers, prices.terms, strict=True))


def _missed(asked: Asked, tried: Sequence[Attempt]) -> str:
    name, unit = ("latency", " of the original's time") if asked.seconds is None else ("latency_ms", " ms")
    near = min(tried, key=lambda one: abs(one.reached - 1))
    took = [[f"{value / one.original if asked.seconds is None else 1000 * value:.3g}"
             for value in (one.time.median, one.time.low, one.time.high)] for one in (near, *tried)]
    nearest, low, high = took[0]
    return (f"{asked} must be kept to within {TOLERANCE:.0%}, and {len(tried)} plans took "
            f"{', '.join(median for median, _, _ in took[1:])}{unit}; the nearest is {name}={nearest} ({low} – "
            f"{high}): ask for that, lower round_to, or measure again on a machine that does nothing else")
