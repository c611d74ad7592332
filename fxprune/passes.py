"""What the public functions are made of: the analysis of a model, and the module that a plan makes of it."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.fx import GraphModule

from fxprune.capture.capturing import GRAPH, MODULE, Captured, capture
from fxprune.capture.hooks import left_behind
from fxprune.capture.model_walk import aliases
from fxprune.capture.provenance import attributed
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.couple import couple, refuse
from fxprune.coupling.refinement import Refused, refine
from fxprune.coupling.replay import InStep, Place
from fxprune.errors import FormError, InputError, VerificationError
from fxprune.ir.policy import Policy
from fxprune.planning import Plan
from fxprune.planning.batches import Data
from fxprune.results import Record, attach, record
from fxprune.rewrite.dead_layers import calls_dead_layers, held_dead_layers, with_dead_layers
from fxprune.rewrite.declared_widths import settle_widths
from fxprune.rewrite.emit import emit
from fxprune.rewrite.fixed_lengths import hold
from fxprune.rewrite.folding import Folded
from fxprune.rewrite.pretrained_config import settle_config
from fxprune.rewrite.recovery import recover
from fxprune.rewrite.shrink import shrink
from fxprune.rewrite.trial import held_by_python, random_cut, refusals
from fxprune.verification import check

Made = TypeVar("Made")


def analysis_of(model: nn.Module, example_inputs: Any = None, policy: Policy | None = None, form: str = "") -> Analysis:
    """Capture, couple, and refine: what a random plan may not cut is frozen.

    Args:
        form: that of the result, where it is another one than the policy's.

    Raises:
        InputError, UnsupportedError, CaptureError: as `fxprune.analyze`.
    """
    refuse(model)
    policy = policy or Policy()
    captured = capture(model, example_inputs)
    _check_outputs(captured, policy)
    if MODULE in (policy.form, form):
        captured = traced_back(model, captured, policy)
    return refined(model, captured, policy)


def refined(model: nn.Module, captured: Captured, policy: Policy, held: Mapping[Place, str] | None = None) -> Analysis:
    """The analysis of a capture; ``held`` is frozen or tied besides what a random plan may not cut."""
    if policy.form != MODULE:
        return refine(model, captured, policy, (refusals, changed_values), held)
    dead: dict[Place, str] = {}
    if captured.mode == GRAPH and calls_dead_layers(captured):
        dead = held_dead_layers(model, couple(model, captured, policy, {}))
    return refine(model, captured, policy, (refusals, held_by_python, changed_values), {**dead, **(held or {})})


def redrawn(model: nn.Module, analysis: Analysis, smaller: Callable[[Analysis], Made], again: bool = True
            ) -> tuple[Analysis, Made]:
    """What ``smaller`` makes of the analysis. Where the model's Python turns out to fix what its plan cuts, that is
    frozen or tied, and the plan drawn again: a trial cuts but one share of every group.

    Args:
        again: not for widths that the caller says, which are not changed.

    Raises:
        FormError: of such widths, or of what is held already.
    """
    held: dict[Place, str] = {}
    while True:
        try:
            return analysis, smaller(analysis)
        except FormError as error:
            found = error.held if error.held.keys() - held.keys() else _apart(error.held)
            if not again or found.keys() <= held.keys():
                raise
            held |= found
        analysis = refined(model, analysis.captured, analysis.coupling.policy, held)


def _apart(held: Mapping[Place, str]) -> dict[Place, str]:
    """Where it was not enough that two dimensions keep in step, neither may be cut."""
    steps = {step: why for step, why in held.items() if isinstance(step, InStep)}
    return {place: why for step, why in steps.items() for place in (step.longer, step.shorter)}


def _check_outputs(captured: Captured, policy: Policy) -> None:
    names = list(dict.fromkeys(name for traced in captured.traced for name in traced.tape.output_names))
    for wanted in policy.outputs or ():
        if not any(Policy(outputs=(wanted,)).holds(name) for name in names):
            shown = ", ".join(map(repr, names[:12]))
            raise InputError(f"outputs= must name outputs of the model, got {wanted!r}; it returns {shown}")


def traced_back(model: nn.Module, captured: Captured, policy: Policy) -> Captured:
    """With the runs that show which numbers of the graphs are attributes of modules; and where plans are drawn for this
    form, with those dead calls that its Python makes with weights."""
    if captured.mode != GRAPH:
        return captured
    if policy.form == MODULE:
        captured = with_dead_layers(captured)
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    return replace(captured, attributed=attributed(model, captured, device))


def changed_values(model: nn.Module, analysis: Analysis) -> Refused:
    """In module mode a size may steer values, too: the first module whose values a random plan changes."""
    coupling = analysis.coupling
    if coupling.mode == GRAPH or not coupling.prunable:
        return {}
    trial = Plan.build(coupling.groups, random_cut(coupling), signature=coupling.signature, inputs=coupling.inputs,
                       digest="", aliases=aliases(model), mode=coupling.mode)
    try:
        check(model, shrink(model, analysis, trial), trial, analysis)
    except VerificationError as error:
        if not any(error.node in tape.modules for tape in coupling.evidence.tapes):
            raise
        return {error.node: f"a size in the model's Python steers its values: {error}"}
    return {}


def proven(base: nn.Module, small: nn.Module, plan: Plan, analysis: Analysis) -> nn.Module:
    """The same module, held against ``base``, with the proof in its record; it asserts what the proof found fixed.

    Raises:
        VerificationError: they differ.
    """
    verification = check(base, small, plan, analysis)
    fixed = [(d.argument, d.dim, d.length, d.why) for d in verification.dimensions if d.asserted]
    if fixed and isinstance(small, GraphModule):
        hold(small, fixed)
    return attach(small, replace(record(small), verification=verification))


def carry_out(folded: Folded, analysis: Analysis, plan: Plan, model: nn.Module | None = None,
              recovery: str | None = None, data: Data | None = None, form: str = "") -> nn.Module:
    """Emit the pruned module, recover it where that is wanted, and attach its record.

    Args:
        folded: what is sliced.
        plan: one that was drawn on this coupling, or checked against it.
        model: the original, whose outputs recovery aims at.
        recovery: its method, or None.
        data: what it reads.
        form: ``"graph"``, or ``"module"`` for a smaller copy of the model's own class; the analysis' policy's if empty.

    Raises:
        FormError: the model's Python fixes what the plan cuts.
    """
    graph = analysis.coupling.mode == (form or analysis.coupling.policy.form) == GRAPH
    rewrite = emit if graph else shrink
    small = rewrite(folded.model, analysis, plan)
    mode = GRAPH if graph else MODULE
    lost = left_behind(folded.model) if mode == GRAPH else []
    if lost:
        warnings.warn(f"the hook {', '.join(lost)} belongs to no layer of torch.nn: what it computes is part of the "
                      "result's graph, and what else it does (collecting, printing, gradients) the result does not "
                      "repeat; register it on one of the result's layers, or pass form=\"module\"", stacklevel=3)
    if mode == MODULE:
        settle_widths(folded.model, small, analysis.coupling.inputs)
        read = {at for runs in analysis.captured.attributed.values() for at in runs.attributes}
        settle_config(folded.model, small, plan.keep, read)
    done = Record.of(analysis.coupling, plan, folded.folds, folded.drift(small, plan), mode)
    if recovery is not None:
        assert model is not None and data is not None, "recovery reads the original, and data"
        done = replace(done, recovery=recover(model, small, analysis.coupling, plan, data, recovery))
    return attach(small, done)
