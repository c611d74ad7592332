"""Fold what removed channels still emit into their consumers.

A filter that training drove to zero still lets its batch norm's shift through: its channel is a constant, and simply
removing it would change the function. Here the model runs with the removed channels' producers at zero. What those
channels then add to the output of each layer that reads them is constant wherever folding is exact (a 1×1, an unpadded
convolution, a linear layer); it goes into that layer's bias, or into the ``running_mean`` of the batch norm behind it.
Where padding makes it vary with the position, its mean goes there, and the rest is a reported number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture import multihead
from fxprune.capture.contexts import compiling, running
from fxprune.capture.example import taken
from fxprune.capture.follower import Follower
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.model_walk import named_tensors
from fxprune.capture.pytrees import tree_map_only
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.structure import deep_copy, isolated_copy
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.coupling.mixing import mixes_removed
from fxprune.coupling.view import View
from fxprune.errors import InputError, VerificationError
from fxprune.ir import example_inputs
from fxprune.ir.comparison import difference
from fxprune.ir.example_inputs import Example
from fxprune.ir.groups import PRODUCER
from fxprune.ir.progress import progress
from fxprune.ir.tape import Call, Ref, refs
from fxprune.ir.trees import tensors_in
from fxprune.planning import Plan

_CONTRACTIONS = {"aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"}
# Relative to the layer's output: a contribution that varies by less is constant.
EXACT = 1e-5
DRIFT = 1e-3
SEED = 20191


@dataclass(frozen=True, eq=False)
class Fold:
    """What was folded into one layer.

    Args:
        layer: the consumer's weight, by name.
        into: the bias or ``running_mean`` that took it up; empty where the layer has neither.
        delta: what was added there, float64 [channels of the layer's output].
        inexact: the largest deviation from that constant over positions and samples, relative to the layer's largest
            output; 0 where it is exact.
    """

    layer: str
    into: str
    delta: np.ndarray
    inexact: float


@dataclass(frozen=True, eq=False)
class Folded:
    """What folding made; ``Folded(model)`` is a model in which nothing was folded.

    Args:
        model: a copy of the original whose biases hold what the removed channels emit; this is sliced.
        held: a copy of the original with the removed channels held at those constants; the result must equal it.
        folds: what was folded where.
        mixed: an operator that mixes what goes with what stays, and takes up no constants (a norm over the channels);
            empty where there is none.
        example: inputs that it was measured on.
    """

    model: nn.Module
    held: nn.Module | None = None
    folds: tuple[Fold, ...] = ()
    mixed: str = ""
    example: Example | None = None

    def drift(self, small: nn.Module, plan: Plan) -> float:
        """How far the result is from the held original in eval mode, relative to its largest output.

        Raises:
            VerificationError: although every fold is exact, and nothing but layers reads what goes, they differ.
        """
        if self.held is None:
            return 0.0
        with untouched_rng(), torch.no_grad(), multihead.written_out():
            args, kwargs = _inputs(self.held, plan, self.example, SEED + 1)
            pairs = zip(*(tensors_in(side.eval()(*args, **kwargs)) for side in (self.held, isolated_copy(small))),
                        strict=True)
            drift = max((difference(a, b) for a, b in pairs if a.is_floating_point()), default=0.0)
        if drift > DRIFT and not self.mixed and all(entry.inexact == 0 for entry in self.folds):
            raise VerificationError("the folded result must equal the original with its removed channels held at "
                                    f"their constants to {DRIFT:g}, and differs by {drift:.3g}; pass "
                                    "fold_constants=False")
        return drift


def fold(model: nn.Module, analysis: Analysis, plan: Plan, calibration: Any = None) -> Folded:
    """Fold what the plan's removed channels emit into their consumers.

    Args:
        model: the original; it is not changed.
        calibration: example inputs, or an iterable of batches, to measure on; random inputs where None.

    Raises:
        InputError: the plan takes branches out.
    """
    if plan.branches:
        raise InputError("fold_constants folds what channels emit in the whole network, and the plan takes branches "
                         "out of it; leave one of the two out, or cut the depth first, and fold in a second step")
    view, coupling = analysis.views(plan.channels)[0], analysis.coupling
    held = _held(model, coupling, plan)
    sums, example = _Sums(), None
    # As in capture: without gradients at all, operators would arrive otherwise.
    with untouched_rng(), fresh_caches(model), running(analysis.captured.differentiates), multihead.written_out(), \
            compiling(bool(coupling.eager)):
        for args, kwargs in _batches(held, plan, calibration, analysis.captured.example):
            example = example or (args, kwargs)
            with _Contributions(view, coupling.mode == "graph", sums):
                held(*args, **kwargs)
    folds = tuple(_folds(view, sums))
    calls = view.tape.ran or view.tape.calls
    mixed = next((call.op for call in calls if mixes_removed(view, call)), "")
    return Folded(applied(model, folds), held, folds, mixed, example)


def applied(model: nn.Module, folds: Iterable[Fold]) -> nn.Module:
    """A copy of ``model`` with these folds."""
    folded = deep_copy(model)
    tensors = dict(named_tensors(folded))
    with torch.no_grad():
        for entry in folds:
            if entry.into:
                tensors[entry.into].add_(torch.from_numpy(entry.delta).to(tensors[entry.into]))
    return folded


def _held(model: nn.Module, coupling: Coupling, plan: Plan) -> nn.Module:
    """The original with every producer of a removed channel at zero; batch norms and shifts stay."""
    held = isolated_copy(model).eval()
    tensors = dict(named_tensors(held))
    with torch.no_grad():
        for name, group in plan.groups.items():
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[list(group.kept)] = False
            for member in coupling.groups[name].members:
                tensor = tensors[member.name]
                if member.role == PRODUCER and tensor.dim() > 1:
                    index = torch.from_numpy(member.index[gone.numpy()[member.channel]]).to(tensor.device)
                    tensor.index_fill_(member.dim, index, 0)
    return held


def _batches(model: nn.Module, plan: Plan, calibration: Any, own: Example | None) -> Iterable[Example]:
    if calibration is None:
        yield _inputs(model, plan, own, SEED)
    elif isinstance(calibration, (torch.Tensor, tuple, dict)):
        yield example_inputs.normalise(calibration)
    else:
        for batch in progress(calibration, "calibration"):
            yield example_inputs.normalise(batch)


def _inputs(model: nn.Module, plan: Plan, other: Example | None, seed: int) -> Example:
    """Random inputs of the sizes that the plan names; others, where the model takes none of those.

    Raises:
        InputError: there are no others.
    """
    def instead(error: Exception) -> Example:
        if other is None:
            raise InputError("what removed channels emit is measured on inputs that the model takes, and on random "
                             f"ones it raised {type(error).__name__}: {error}; pass calibration=, or example_inputs="
                             ) from error
        copied: Example = tree_map_only(torch.Tensor, torch.clone, other)  # models may write into their inputs
        return copied

    return taken(model, plan.inputs, torch.Generator().manual_seed(seed), None, instead)


class _Sums:
    """Per contraction: the sum, count and spread of what removed channels add to it."""

    def __init__(self) -> None:
        self.mean: dict[int, torch.Tensor] = {}
        self.count: dict[int, int] = {}
        self.spread: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.scale: dict[int, float] = {}

    def add(self, key: int, contribution: torch.Tensor, out: torch.Tensor, channel: int) -> None:
        """``contribution`` and ``out`` are outputs of the layer; ``channel`` is their channel dimension."""
        rows = contribution.transpose(0, channel).flatten(1).double()
        self.mean[key] = self.mean.get(key, 0) + rows.sum(1)
        self.count[key] = self.count.get(key, 0) + rows.shape[1]
        low, high = self.spread.get(key, (rows.amin(1), rows.amax(1)))
        self.spread[key] = torch.minimum(low, rows.amin(1)), torch.maximum(high, rows.amax(1))
        self.scale[key] = max(self.scale.get(key, 0.0), float(out.abs().max()))

    def constant(self, key: int) -> tuple[torch.Tensor, float]:
        """The mean contribution per output channel, and how far it is from being constant."""
        mean = self.mean[key] / self.count[key]
        low, high = self.spread[key]
        off = float(torch.maximum(high - mean, mean - low).max()) / max(self.scale[key], 1e-30)
        return mean, off if off > EXACT else 0.0


class _Contributions(Follower):
    def __init__(self, view: View, strict: bool, sums: _Sums):
        super().__init__(view.tape, strict)
        self.view, self.sums = view, sums
        self.keys = {id(call): number for number, call in enumerate(self.calls)}

    def handle(self, call: Call | None, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        gone = None if call is None else _reads(self.view, call)
        if call is not None and gone is not None:
            dim, mask = gone
            x = args[0].clone()
            x.index_fill_(dim, torch.from_numpy(mask.nonzero()[0]).to(x.device), 0)
            alone = func(x, args[1], None, *args[3:], **{k: v for k, v in kwargs.items() if k != "bias"})
            channel = out.dim() - 1 if call.op == "aten::linear" else out.dim() - (args[1].dim() - 1)
            self.sums.add(self.keys[id(call)], alone, out, channel)
        return out


def _reads(view: View, call: Call) -> tuple[int, Any] | None:
    """The channel dimension of a contraction's input and the mask of what stays, where something goes."""
    if call.op not in _CONTRACTIONS or len(call.args) < 2 or call.args[1].id not in view.tape.params:
        return None
    x, weight = call.args[:2]
    dim = len(x.shape) - 1 if call.op == "aten::linear" else len(x.shape) - (len(weight.shape) - 1)
    mask = view.masks(x)[dim]
    return None if mask.all() else (dim, mask)


def _folds(view: View, sums: _Sums) -> Iterable[Fold]:
    calls = view.tape.ran or view.tape.calls
    weights = [calls[key].args[1].id for key in sums.mean]
    for key in sums.mean:
        call, (mean, off) = calls[key], sums.constant(key)
        # A layer that is called twice would need a bias for each call.
        into, sign = _target(view, calls, call) if weights.count(call.args[1].id) == 1 else ("", 1)
        lost = float("inf") if bool(mean.any()) else 0.0
        yield Fold(view.tape.params[call.args[1].id], into, sign * mean.cpu().numpy(), off if into else lost)


def _target(view: View, calls: list[Call], call: Call) -> tuple[str, int]:
    """Where a constant at a layer's output can go, and with which sign."""
    bias = call.args[2] if len(call.args) > 2 else call.kwargs.get("bias")
    if isinstance(bias, Ref) and bias.id in view.tape.params:
        return view.tape.params[bias.id], 1
    out = next(refs(call.outs))
    users = [other for other in calls if any(ref.id == out.id for ref in refs((other.args, other.kwargs)))]
    if len(users) == 1 and users[0].op == "aten::batch_norm" and isinstance(users[0].args[3], Ref):
        return view.tape.params.get(users[0].args[3].id, ""), -1
    return "", 1
