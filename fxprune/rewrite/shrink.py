"""The module form: a deep copy of the user's own class with smaller parameters. The same slicer, the same table; its
Python stays as it is, so that the numbers that its modules hold are set where a graph shows what becomes of them."""

import numpy as np
from torch import nn

from fxprune.capture.capturing import GRAPH
from fxprune.capture.structure import deep_copy
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.view import View
from fxprune.errors import FormError, PlanError
from fxprune.ir.tape import Ref
from fxprune.planning import Plan
from fxprune.rewrite.module_form import formed
from fxprune.rewrite.module_sizes import remembered
from fxprune.rewrite.site import LiteralError
from fxprune.rewrite.slicing import slice_all


def shrink(model: nn.Module, analysis: Analysis, plan: Plan) -> nn.Module:
    """A shrunken deep copy of ``model``.

    Raises:
        LiteralError: a module without weights would have to serve two widths.
        FormError: the model's Python fixes what the plan cuts.
        PlanError: the plan takes branches out.
    """
    if plan.branches:
        raise PlanError(f"plan.branches: {next(iter(plan.branches))!r} is to go, and form=\"module\" keeps the model's "
                        "Python, which adds that branch; pass form=\"graph\"")
    small = deep_copy(model, slice_all(model, plan.keep))
    if analysis.coupling.mode == GRAPH:
        refused = formed(model, small, analysis, plan.channels)
        if refused:
            raise FormError(refused)
        return small
    for view in analysis.views(plan.channels):
        remember(model, small, view)
    return small


def remember(model: nn.Module, small: nn.Module, view: View) -> None:
    """Set what the leaf modules of a shrunken copy remember of their sizes."""
    for path, calls in view.tape.modules.items():
        original, module = model.get_submodule(path), small.get_submodule(path)
        for number, (into, out) in enumerate(calls):
            changed = remembered(original, module, _masks(view, into), _masks(view, out))
            if changed and number:
                raise LiteralError(path, "a module that is called twice would have to serve two widths")
            for name, value in changed.items():
                setattr(module, name, value)


def _masks(view: View, ref: Ref | None) -> list[np.ndarray]:
    return [] if ref is None else view.masks(ref)
