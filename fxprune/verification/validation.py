"""Translation validation: the emitted module against the masked original, from the plan alone.

Both sides get the same random weights. In the original, what the plan removes is zero, and operators that mix channels
compute over the kept ones; the emitted module must agree node by node, at the kept positions, in eval and in train
mode, at the given and at a second batch size. Nothing here knows how the module was emitted.
"""

import math

import torch
from torch import nn

from fxprune.capture.capturing import MODULE
from fxprune.capture.randomness import untouched_rng
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
from fxprune.verification.ledger import Ledger
from fxprune.verification.prepare import check_weights, pair
from fxprune.verification.sides import SAMPLES, Sides
from fxprune.verification.tried_inputs import candidates, planned
from fxprune.verification.undecided import Undecided
from fxprune.verification.verdict import Verification

# Beyond this many parameters weights stay stored as they are, and single precision is tried first.
DOUBLE_LIMIT = 50_000_000
TOLERANCE = {torch.float64: 1e-6, **ROUNDING}
SEED = 20190
# Bytes of the original's values that are kept to be compared, besides those that a run needs by itself.
HELD = 4 << 30


def check(model: nn.Module, small: nn.Module, plan: Plan, analysis: Analysis) -> Verification:
    """Hold ``small`` against the masked ``model``.

    Raises:
        VerificationError: they differ; the message names the first node that does.
    """
    check_weights(model, small, plan.keep)
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
    captured, order = analysis.captured, Order(analysis.coupling, plan)
    views = {id(view.traced): view for view in analysis.views(plan.channels)}

    def declined(mode: str, example: Example, view: View) -> str:
        """Why the original does not take these inputs; nothing where both sides were compared on them."""
        shares = _shares(view, dtype.itemsize * 2)
        for k in range(shares):
            # New copies each time: what a model caches on itself in one run would change the next.
            both = pair(model, small, plan.keep, arithmetic, SEED)
            why = Sides(*both, analysis, ledger, order, arithmetic, samples, (k, shares)).run(mode, example, view)
            if why:
                return why
        return ""

    with untouched_rng():
        for number, (mode, second, variation) in enumerate(planned(captured)):
            view = views[id(captured.ways[variation] if variation else captured.modes[mode])]
            why = ""
            tried = candidates(model, plan.inputs, captured.example, second, arithmetic.wide, SEED + number)
            for example, how in tried:
                example = example_inputs.varied(example, variation) if variation else example
                no = declined(mode, example, view)
                why = why or no
                if not no:
                    ledger.notes += [f"{how}: {why}"] if how else []
                    break
            else:
                ledger.notes.append(why)
    if not ledger.runs:
        raise Undecided(f"nothing could be compared: {'; '.join(ledger.notes)}")
    if "train" not in captured.modes:
        what = "module mode, compared in eval mode only" if captured.mode == MODULE else "not captured in train mode"
        ledger.notes.append(f"{what}: {captured.why}")
    return Verification(ledger.error, ledger.count, ledger.worst, ledger.allowed, dtype_name(dtype),
                        tuple(ledger.runs), tuple(ledger.notes))


def _shares(view: View, itemsize: int) -> int:
    """In how many runs the nodes are compared, so that no more than ``HELD`` bytes of their values are kept at once."""
    values = {ref.id: ref for refs in view.tape.nodes.values() for ref in refs.values()}
    return max(1, -(-sum(math.prod(view.lengths(ref)) for ref in values.values()) * itemsize // HELD))
