"""Translation validation: the emitted module against the masked original, from the plan alone.

Both sides get the same random weights. In the original, what the plan removes is zero, and operators that mix channels
compute over the kept ones; the emitted module must agree node by node, at the kept positions, in eval and in train
mode, at the given and at other sizes. Nothing here knows how the module was emitted.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.fx import GraphModule

from fxprune.capture.capturing import GRAPH, MODULE
from fxprune.capture.dynamic_sizes import Axis, Member
from fxprune.capture.example import varied
from fxprune.capture.hooks import any_hooked
from fxprune.capture.pytrees import tree_iter
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.traced import Traced
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.view import View
from fxprune.errors import VerificationError
from fxprune.ir import example_inputs
from fxprune.ir.comparison import ROUNDING
from fxprune.ir.example_inputs import Example
from fxprune.ir.signature import dtype_name
from fxprune.planning import Plan
from fxprune.verification.arithmetic import Arithmetic
from fxprune.verification.channel_order import Order
from fxprune.verification.input_dimensions import Lengths, axes_of, input_dimensions, left, resized
from fxprune.verification.ledger import Ledger
from fxprune.verification.prepare import Laid, changed_by, check_weights, pair
from fxprune.verification.run_sizes import small_sizes
from fxprune.verification.settings import check_settings
from fxprune.verification.sides import SAMPLES, Sides
from fxprune.verification.tried_inputs import EVERY, GIVEN, SKIPPING, candidates, given_size, other_sizes, planned
from fxprune.verification.undecided import Stalled, Undecided
from fxprune.verification.verdict import Verification

# Beyond this many parameters weights stay stored as they are, and single precision is tried first.
DOUBLE_LIMIT = 50_000_000
TOLERANCE = {torch.float64: 1e-6, **ROUNDING}
SEED = 20190
# Bytes of the original's values that are kept to be compared, besides those that a run needs by itself, so that one run
# shows all of them. Of models of so many parameters it is a quarter of what the weights take, between these bounds.
HELD, LARGE, FEW, MANY = 2 << 30, 100_000_000, 1 << 28, 4 << 30


def check(model: nn.Module, small: nn.Module, plan: Plan, analysis: Analysis) -> Verification:
    """Hold ``small`` against the masked ``model``.

    Raises:
        VerificationError: they differ; the message names the first node that does.
    """
    check_weights(model, small, plan.keep, {name for tensors in plan.branches.values() for name in tensors})
    check_settings(model, small)
    native = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    native = native if native in TOLERANCE else torch.float32
    refused: list[VerificationError] = []
    notes: tuple[str, ...] = ()
    for arithmetic in _arithmetics(model):
        dtype = arithmetic.wide or native
        try:
            return _compared(model, small, plan, analysis, dtype, arithmetic, notes)
        except VerificationError as error:
            # Of single precision, where a norm over few values magnifies rounding, double precision decides.
            if dtype is torch.float64 and not isinstance(error, Undecided):
                raise
            refused.append(error)
            notes = (f"not in {dtype_name(dtype)}: {error}",)
    raise next((error for error in refused if not isinstance(error, Undecided)), refused[-1])


def _compared(model: nn.Module, small: nn.Module, plan: Plan, analysis: Analysis, dtype: torch.dtype,
              arithmetic: Arithmetic, notes: tuple[str, ...]) -> Verification:
    """What rounding does is measured where anything differs; mostly nothing does."""
    try:
        return _attempt(model, small, plan, analysis, dtype, arithmetic, 0, notes)
    except Undecided:
        raise
    except VerificationError as error:
        notes = (*notes, f"what rounding does was measured, since {error.node or 'the output'!r} differed")
        return _attempt(model, small, plan, analysis, dtype, arithmetic, SAMPLES, notes)


def _arithmetics(model: nn.Module) -> list[Arithmetic]:
    """What is tried, until one decides: the last is that of the model's own dtypes."""
    if sum(p.numel() for p in model.parameters()) < DOUBLE_LIMIT:
        return [Arithmetic(torch.float64), Arithmetic(None)]
    return [Arithmetic(torch.float32, stored=True), Arithmetic(torch.float64, stored=True), Arithmetic(torch.float64),
            Arithmetic(None)]


def _attempt(model: nn.Module, small: nn.Module, plan: Plan, analysis: Analysis, dtype: torch.dtype,
             arithmetic: Arithmetic, samples: int, notes: tuple[str, ...]) -> Verification:
    ledger = Ledger(TOLERANCE[dtype], dtype, notes=list(notes))
    comparison = _Comparison(model, small, plan, analysis, arithmetic, samples, ledger)
    captured = analysis.captured
    with untouched_rng():
        for number, (mode, second, variation) in enumerate(planned(captured)):
            if variation == SKIPPING:
                skipping = replace(comparison, arithmetic=replace(arithmetic, skipping=True))
                skipping.compare(mode, second, "", SEED + number)
                continue
            try:
                comparison.compare(mode, second, variation, SEED + number)
            except Undecided as error:
                # In module mode training is what the model's own Python makes of it: it need not go where it was seen.
                if mode == "eval" or captured.mode == GRAPH or isinstance(error, Stalled):
                    raise
                ledger.notes.append(f"not compared in train mode: {error}")
        why = comparison.explore() if ledger.runs and captured.mode == GRAPH else {}
    if not ledger.runs:
        raise Undecided(f"nothing could be compared: {'; '.join(ledger.notes)}")
    ran = {mode for mode, _ in ledger.runs}
    claimed = tuple(mode for mode in captured.modes if captured.mode == GRAPH or mode == "eval" or mode in ran)
    if "train" not in claimed:
        what, no = (("module mode, compared in eval mode only", captured.untrained or captured.why)
                    if captured.mode == MODULE else ("not captured in train mode", captured.why))
        ledger.notes.append(f"{what}: {no}")
    return Verification(ledger.error, ledger.count, ledger.worst, ledger.allowed, dtype_name(dtype),
                        tuple(ledger.runs), tuple(ledger.notes), tuple(ledger.shapes), claimed,
                        input_dimensions(captured, plan.inputs, ledger.shapes, why))


@dataclass
class _Comparison:
    """Both sides, run as often as it takes."""

    model: nn.Module
    small: nn.Module
    plan: Plan
    analysis: Analysis
    arithmetic: Arithmetic
    samples: int
    ledger: Ledger

    def __post_init__(self) -> None:
        self.laid = Laid()
        self.order = Order(self.analysis.coupling, self.plan)
        weights = [(t.numel(), t.element_size()) for t in self.model.parameters()]
        large = sum(count for count, _ in weights) >= LARGE
        self.held = min(MANY, max(FEW, sum(map(math.prod, weights)) // 4)) if large else HELD
        self.views = {id(view.traced): view for view in self.analysis.views(self.plan.channels, self.plan.branches)}

    def compare(self, mode: str, second: bool, variation: str, seed: int) -> None:
        """On the first inputs that the original takes, and its result does not refuse."""
        captured, why, notes = self.analysis.captured, "", len(self.ledger.notes)
        traced = captured.ways[variation] if variation else captured.modes[mode]
        inputs = self.plan.inputs
        axes = axes_of(captured, inputs)
        changes = [*((change, EVERY) for change in small_sizes(axes, second)),
                   *(other_sizes(inputs, axes) if second else [given_size()])]
        for example, how in candidates(self.model, inputs, captured.example, changes, self.arithmetic.wide, seed):
            if how == GIVEN and any(ran == mode for ran, _ in self.ledger.runs):
                break  # it was compared at these in another run
            example = varied(example, variation) if variation else example
            no = self._tried(mode, example, traced) if how == EVERY else self._led(mode, example, traced)
            why = why or no
            if not no:
                del self.ledger.notes[notes:]
                self.ledger.notes += [f"{how}: {why}"] if how not in ("", EVERY) else []
                return
        del self.ledger.notes[notes:]
        self.ledger.notes.append(why)

    def _led(self, mode: str, example: Example, traced: Traced) -> str:
        """As `_declined`; in module mode data may lead along another of the ways that were recorded, or along none,
        where it is not known which channels an operator should mix."""
        why = ""
        for way in (traced, *(other for other in self.analysis.captured.ways.values() if other is not traced)):
            before = self.ledger.copy()
            try:
                return self._declined(mode, example, way)
            except VerificationError as error:
                if not self.ledger.astray:
                    raise
                self.ledger.restore(before)
                why = why or f"data lead past what was recorded ({mode} mode): {error}"
        return why

    def _tried(self, mode: str, example: Example, traced: Traced) -> str:
        """As `_declined`, of lengths that need not be: where the result is another one there, it may not have them. A
        difference is a difference once it is known what rounding does; a larger batch must never make one."""
        before = self.ledger.copy()
        try:
            return self._declined(mode, example, traced)
        except Stalled:
            raise
        except VerificationError as error:
            if not self.samples and not isinstance(error, Undecided):
                raise
            self.ledger.restore(before)
            return f"at other lengths the result is another one, first at {error.node or 'output'!r}"

    def _declined(self, mode: str, example: Example, traced: Traced) -> str:
        """Why both sides were not compared on these inputs; nothing where they were."""
        view, runs, notes = self.views[id(traced)], len(self.ledger.runs), len(self.ledger.notes)
        shares = self._shares(view, example)
        for k in range(shares):
            # The original is copied each time: what it caches on itself in one run would change the next.
            both = pair(self.model, self.small, self.plan.keep, self.arithmetic, SEED, self.laid)
            if not isinstance(self.small, GraphModule) or any_hooked(self.small) or changed_by(view.tape):
                self.laid = Laid()  # what Python, or a write, will leave there is not known
            why = Sides(*both, self.analysis, self.ledger, self.order, self.arithmetic, self.samples, (k, shares)
                        ).run(mode, example, view)
            if why:
                return why
            if len(self.ledger.runs) == runs:  # the result refuses these inputs
                return "; ".join(self.ledger.notes[notes:])
        return ""

    def explore(self) -> dict[Member, str]:
        """Compare at another length of each dimension that was not; why not, where the original takes none."""
        captured = self.analysis.captured
        why: dict[Member, str] = {}
        pending = left(captured, self.plan.inputs, self.ledger.shapes)
        lengths = Lengths(self.model, self.plan.inputs)
        if not pending or lengths.untold():
            return {}
        for axis in pending:
            for way, length, raised in lengths.others(axis):
                no = f"at {length} the model raises {raised}" if raised else self._at(way, length)
                if not no:
                    break
                why.setdefault(axis.members[0], no)
            else:
                why |= dict.fromkeys(axis.members, why[axis.members[0]])
                continue
            why.pop(axis.members[0], None)
        return why

    def _at(self, way: Axis, length: int) -> str:
        inputs, notes = self.plan.inputs, len(self.ledger.notes)
        device = next((t.device for t in self.model.parameters()), torch.device("cpu"))
        example = example_inputs.realise(inputs, device, torch.Generator().manual_seed(SEED),
                                         resized(dict.fromkeys(way.members, length)), self.arithmetic.wide)
        try:
            no = self._tried("eval", example, self.analysis.captured.modes["eval"])
        except Stalled as error:
            no = str(error)
        del self.ledger.notes[notes:]
        return no

    def _shares(self, view: View, example: Example) -> int:
        """In how many runs the nodes are compared, so that few of their values are kept at once."""
        values = {ref.id: ref for refs in view.tape.nodes.values() for ref in refs.values()}
        captured = sum(math.prod(spec.shape) for spec in example_inputs.specs(self.plan.inputs))
        now = sum(t.numel() for t in tree_iter(example) if isinstance(t, torch.Tensor))
        count = sum(math.prod(view.lengths(ref)) for ref in values.values()) * now // max(captured, 1)
        return max(1, -(-count * self.ledger.dtype.itemsize // self.held))
