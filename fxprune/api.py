"""The passes in a row: analyze, plan, apply, verify."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn
from typing_extensions import Unpack

from fxprune.capture.capturing import GRAPH
from fxprune.capture.model_walk import aliases, signature_of
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.couple import refuse
from fxprune.coupling.coupling import Coupling
from fxprune.coupling.permutable import held_in_order
from fxprune.errors import CaptureError, InputError, PlanError
from fxprune.gradual.original import of_the_original
from fxprune.ir.policy import Policy
from fxprune.latency.correction import timed_plan
from fxprune.latency.target import Target
from fxprune.passes import analysis_of, carry_out, proven, redrawn
from fxprune.planning import Plan
from fxprune.planning.batches import SAMPLES, Data, Loss
from fxprune.planning.cut_options import CutOptions, with_cut_options
from fxprune.planning.scoring import as_data
from fxprune.planning.selection import select
from fxprune.planning.shortfall import say_what_goes_beyond
from fxprune.results import attach, found_record, record
from fxprune.rewrite.folding import Folded, applied, fold
from fxprune.rewrite.recovery import check_method, laid_in
from fxprune.training import DWGL
from fxprune.training.user_fit import Fit, default_penalty, trained
from fxprune.verification import Verification, check
from fxprune.verification.undecided import Undecided


def analyze(model: nn.Module, example_inputs: Any = None, *, policy: Policy | None = None,
            form: str | None = None, outputs: Iterable[str | int] | None = None) -> Coupling:
    """Find the coupling groups of a model.

    Args:
        model: any ``nn.Module``; it is not changed.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments; inferred where None.
        policy: how splits into attention heads and into convolution groups are pruned.
        form: ``"graph"`` or ``"module"``, the form that its plans can be carried out in; the policy's where None. For a
            module of the model's own class what its Python fixes is frozen, by line.
        outputs: names of the outputs that keep their size, as for `compress`; all where None.

    Raises:
        InputError: no module, inputs that do not fit, or an output that the model has not.
        UnsupportedError: quantized and scripted modules.
        CaptureError: the model raises in forward.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> import torch
    >>> analyze(net, torch.randn(1, 3, 8, 8)).groups["0"].size
    8
    """
    return analysis_of(model, example_inputs, _policy(policy, form, outputs)).coupling


@with_cut_options
def compress(model: nn.Module, example_inputs: Any = None, *, recover: str | None = None,
             fold_constants: bool = False, calibration: Any = None, verify: bool = True,
             policy: Policy | None = None, train: Fit | None = None,
             penalty: Callable[[Coupling], DWGL] | None = None, target: Target | None = None, of: str = "model",
             form: str | None = None, outputs: Iterable[str | int] | None = None, **cut: Unpack[CutOptions]
             ) -> nn.Module:
    """A smaller model that computes what the original computes without the removed channels; checked before it returns.

    Args:
        model: any ``nn.Module``; it is not changed.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments; inferred where None.
        recover: ``"least_squares"``, ``"obs"`` or ``"statistics"``: make up for what was cut, from ``data`` and without
            training (see `fxprune.rewrite.recovery`); what it did is in ``record(small).recovery``.
        fold_constants: fold what removed channels still emit into their consumers (see `fxprune.fold`).
        calibration: inputs, or batches of them, to measure those constants on; random ones where None.
        verify: prove the result against the masked original, in eval and in train mode.
        policy: how splits into attention heads and convolution groups are pruned.
        train: your own training function, ``fit(model, penalty)``: it gets a copy whose channels are ordered by their
            norm, and the penalty, and trains that copy in place as it likes, with ``penalty.step(model)`` after every
            update. The plan is drawn afterwards; a warning says where it goes beyond what the votes gave up.
        penalty: makes the penalty from the coupling; where None, `DWGL.towards` the budget, within 1000 updates
            (``penalty.within(steps)`` in ``fit`` for another number), or ``DWGL`` where the budget is not one of MACs
            or parameters. ``functools.partial(DWGL, strength=1e-3)`` for a strength of one's own.
        target: with ``latency`` or ``latency_ms``, where the time is measured; here, in this process, where None. The
            result is measured in turn with the original, and its own time decides (``record(small).latency``).
        of: what ``macs`` and ``params`` are fractions of: ``"model"``, or, where this model is itself a result, the
            first ``"original"``, so that steps of `fxprune.schedule` may follow one another.
        form: ``"graph"``, a GraphModule, or ``"module"``, a smaller copy of the model's own class, which keeps its
            methods, attributes and optional arguments; the policy's where None, which is ``"graph"``.
        outputs: names of the outputs that keep their size; all where None. Others may shrink, which
            ``record(small).outputs`` tells: caches, hidden states that only the model's own next part reads. A field's
            name (``"logits"``), a place in a tuple (``0``), a path (``"past_key_values.0"``) or what it begins with;
            ``()`` holds none.
        cut: how much goes, and where: all that `fxprune.plan` takes, as ``macs``, ``params`` or ``channels`` (the
            fraction to *keep*; half of the MACs where none is given), ``latency`` (of the measured time) or
            ``latency_ms``, ``threshold`` or ``widths`` in their place, ``criterion``, ``vote``, ``scope``, ``per``,
            ``round_to``, ``groups``, ``ignore``, ``min_channels``, ``uniform``, ``depth``, ``depth_criterion``, and
            ``data``, ``loss`` and ``samples`` for criteria that read data and for recovery.

    Returns:
        A ``torch.fx.GraphModule``; with ``form="module"``, or where the model's Python cannot be traced
        (``record(small).mode``), a smaller deep copy of the same class.

    Raises:
        FxpruneError: its subclasses say what is wrong and what to write instead.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> import torch
    >>> small = compress(net, torch.randn(1, 3, 8, 8), channels=0.5)
    >>> small(torch.randn(1, 3, 8, 8)).shape, record(small).after.widths["0"]
    (torch.Size([1, 4, 4, 4]), 4)
    """
    cut["data"] = _data_for(recover, cut.get("data"), cut.pop("loss", None), cut.pop("samples", SAMPLES))
    earlier, analysis = found_record(model), analysis_of(model, example_inputs, _policy(policy, form, outputs))
    cut = cut if of == "model" else of_the_original(of, cut, earlier, analysis.coupling)
    if train is not None:
        pressed = select(analysis.coupling.groups, model, cut.get("groups", "auto"), cut.get("ignore", ()))
        made = (penalty or default_penalty([group.name for group in pressed], cut))(analysis.coupling)
        model = trained(model, analysis.coupling, train, made)
    analysis, (drawn, timing, folded, small) = redrawn(
        model, analysis, lambda now: _smaller(model, now, target, cut, recover, fold_constants, calibration),
        again=cut.get("widths") is None)
    if train is not None and cut.get("vote") != "intersection":  # there the plan itself has said so
        kept = {name: group.kept for name, group in drawn.groups.items()}
        say_what_goes_beyond(analysis.coupling, made.votes(model).agreed, kept, "the budget", 4)
    small = attach(small, replace(record(small), latency=timing).following(earlier, ordered=train is not None))
    if not verify:
        return small
    return proven(_recovered(folded.model, small, drawn), small, drawn, analysis)


def _smaller(model: nn.Module, analysis: Analysis, target: Target | None, cut: CutOptions, recover: str | None,
             fold_constants: bool, calibration: Any) -> tuple[Plan, Any, Folded, nn.Module]:
    """A plan, its measured time where one is asked for, and what it makes of the model."""
    drawn, timing = timed_plan(model, analysis, target, cut)
    folded = fold(model, analysis, drawn, calibration) if fold_constants else Folded(model)
    return drawn, timing, folded, carry_out(folded, analysis, drawn, model, recover, cut.get("data"))


def verify(model: nn.Module, small: nn.Module, plan: Plan, example_inputs: Any = None) -> Verification:
    """Hold a pruned module against the masked original, node by node.

    Args:
        model: the original.
        small: what `compress` or `apply` made of it; not trained since.
        plan: what was kept.
        example_inputs: other inputs than those whose specs the plan holds.

    Raises:
        VerificationError: they differ.
        PlanError: the plan does not belong to this model.
    """
    _check_plan(model, plan, "any")
    done = found_record(small)
    base = applied(model, done.folds) if done is not None and done.folds else model
    with _sizes_alone(example_inputs):
        analysis = _analysis_for(model, plan, example_inputs)
        return check(_recovered(base, small, plan), small, plan, analysis)


def apply(model: nn.Module, plan: Plan, example_inputs: Any = None, *, weights: str = "same",
          recover: str | None = None, data: Any = None, samples: int | None = SAMPLES, fold_constants: bool = False,
          calibration: Any = None, form: str = GRAPH, verify: bool = True) -> nn.Module:
    """Carry out a plan on a model: a new, smaller module, checked before it returns; ``model`` stays as it is.

    Args:
        model: the model that the plan was drawn for.
        plan: from `plan` or ``Plan.load``.
        example_inputs: other inputs than those whose specs the plan holds.
        weights: ``"same"`` demands the weights that the plan was drawn from, ``"any"`` takes any.
        recover, data, samples: make up for what was cut, as for `fxprune.compress`.
        fold_constants: fold what removed channels still emit into their consumers (see `fxprune.fold`).
        calibration: inputs, or batches of them, to measure those constants on; random ones where None.
        form: ``"graph"``, a GraphModule, or ``"module"``, a smaller copy of the model's own class: the same numbers.
        verify: prove the result against the masked original, in eval and in train mode.

    Raises:
        PlanError: the plan does not belong to this model, or these weights.
        FormError: the plan cuts what the model's own Python fixes.
        VerificationError: the result does not compute the masked original.
    """
    data = _data_for(recover, data, None, samples)
    _check_plan(model, plan, weights)
    if verify and any(parameter.is_meta for parameter in model.parameters()):
        raise InputError("a model without weights cannot be verified, and this one is on the meta device; pass "
                         "verify=False, and verify when its weights are there")
    with _sizes_alone(example_inputs):
        analysis = _analysis_for(model, plan, example_inputs, Policy(form=form).form)
    plan.check(analysis.coupling.signature, analysis.coupling.groups, aliases(model), analysis.coupling.branches)
    _check_moves(analysis.coupling, plan)
    folded = fold(model, analysis, plan, calibration) if fold_constants else Folded(model)
    small = carry_out(folded, analysis, plan, model, recover, data, form)
    small = attach(small, record(small).following(found_record(model)))
    if not verify:
        return small
    with _sizes_alone(example_inputs):
        return proven(_recovered(folded.model, small, plan), small, plan, analysis)


def _policy(policy: Policy | None, form: str | None, outputs: Iterable[str | int] | None) -> Policy:
    said: dict[str, Any] = {"form": form, "outputs": outputs}
    return replace(policy or Policy(), **{name: value for name, value in said.items() if value is not None})


def _data_for(recover: str | None, data: Any, loss: Loss | None, samples: int | None) -> Data | None:
    """The data of a call, checked before anything is captured."""
    found = as_data(data, loss, samples)
    if recover is None:
        return found
    check_method(recover)
    if found is None:
        raise InputError(f"recover={recover!r} learns from data, and none was given; pass data=batches (a few hundred "
                         "inputs, labels are not needed)")
    return found


def _recovered(model: nn.Module, small: nn.Module, plan: Plan) -> nn.Module:
    """What ``small`` is the pruned form of: the original with what recovery changed laid in."""
    done = found_record(small)
    return model if done is None or done.recovery is None else laid_in(model, small, plan, done.recovery)


def _check_moves(coupling: Coupling, plan: Plan) -> None:
    held = held_in_order(coupling, plan.channels)
    if held:
        raise PlanError(f"plan.groups[{held[0]!r}].kept: its channels may be removed but not reordered, because they "
                        "lie in unlike orders in some tensor; list them in ascending order")


def _check_plan(model: nn.Module, plan: Plan, weights: str) -> None:
    if not isinstance(plan, Plan):
        raise InputError(f"plan must be a fxprune.Plan, got {type(plan).__name__}; write fxprune.plan(coupling, model) "
                         "or fxprune.Plan.load(path)")
    if weights not in ("same", "any"):
        raise InputError(f"weights must be 'same' or 'any', got {weights!r}")
    refuse(model)
    done = found_record(model)
    if done is not None and done.plan == plan:
        raise PlanError("a plan can be applied once, and this model is its result already; apply it to the original")
    plan.check(signature_of(model))
    if weights == "same":
        plan.check_weights(model)


def _analysis_for(model: nn.Module, plan: Plan, example_inputs: Any, form: str = "") -> Analysis:
    inputs = plan.inputs if example_inputs is None else example_inputs
    return analysis_of(model, inputs, Policy(**plan.policy), form)


@contextmanager
def _sizes_alone(example_inputs: Any) -> Iterator[None]:
    """Random inputs of the sizes that a plan holds may be none that the model takes: what to do, then, is said."""
    try:
        yield
    except (CaptureError, Undecided) as error:
        if example_inputs is not None:
            raise
        raise type(error)(f"{error}. A plan holds the sizes of its example inputs, and these were random ones; where "
                          "the model takes certain values only, pass example_inputs=") from error
