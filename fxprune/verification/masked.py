"""Run the original with operators that mix channels computing over the kept ones only.

The run is walked along the tape of the captured run: the i-th operator is the i-th call, whose dim vectors say which
indices stay. An operator whose rule ``mixes`` gets its operands with the removed indices taken out, and its result is
laid back into the full size, with zeros where nothing is computed.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch

from fxprune.capture.dispatch import TorchDispatchMode, operator_name
from fxprune.capture.follower import Follower
from fxprune.capture.observer import results
from fxprune.capture.pytrees import tree_flatten, tree_unflatten
from fxprune.coupling.mixing import mixes_removed
from fxprune.coupling.view import View
from fxprune.ir.masks import fits, fitted
from fxprune.ir.tape import Call, Ref, refs
from fxprune.ir.trees import leaves
from fxprune.rules.bugs import failed
from fxprune.rules.registry import rule_for
from fxprune.verification.arithmetic import Run
from fxprune.verification.kept_part import indices, kept_part
from fxprune.verification.undecided import Undecided


class Computing(TorchDispatchMode):
    """The pruned side: every operator is computed by ``run``, and nothing else is touched."""

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})


class Masked(Follower):
    """The original's side.

    Args:
        view: the coupling under the plan.
        done: called as ``done(node, {ref id: tensor})`` when the operators of a node have run.
        run: computes an operator.
        strict: whether the run must follow the tape.
    """

    def __init__(self, view: View, done: Callable[[str, dict[int, torch.Tensor]], None], run: Run, strict: bool = True,
                 skipped: Collection[str] = ()):
        super().__init__(view.tape, strict, skipped)
        self.view, self.done, self.run = view, done, run
        self.live = {id(call) for call in view.tape.calls}
        self.sums = {id(call): view.skipped.sums[call.node] for call in view.tape.calls
                     if call.node in view.skipped.sums}
        self.values: dict[int, torch.Tensor] = {}
        self.astray = False  # at an operator that mixes channels, of which the tape cannot tell which are kept

    def fits(self, call: Call, args: Any, kwargs: Any) -> bool:
        tensors, known = leaves((args, kwargs), torch.Tensor), list(refs((call.args, call.kwargs)))
        return list(map(torch.Tensor.dim, tensors)) == [len(ref.shape) for ref in known] and all(
            fits(mask, length) for tensor, ref in zip(tensors, known, strict=True)
            for mask, length in zip(self.view.masks(ref), tensor.shape, strict=True))

    def handle(self, call: Call | None, func: Any, args: Any, kwargs: Any) -> Any:
        if call is None:
            rule = rule_for(operator_name(func))
            self.astray = self.astray or rule is not None and bool(rule.mixes)
            return self.run(func, args, kwargs)
        if id(call) in self.sums:
            args = without(args, self.sums[id(call)], call.op.endswith("_"))
        # Of a call of which nothing comes, nothing is known of its operands.
        live = id(call) in self.live
        out = compute(self.view, call, func, args, kwargs, self.run) if live else self.run(func, args, kwargs)
        self._remember(call, results(func, args, kwargs, out))
        return out

    def _remember(self, call: Call, tensors: list[torch.Tensor]) -> None:
        self.values.update({ref.id: t for ref, t in zip(refs(call.outs), tensors, strict=self.strict)})
        after = self.calls[self.position].node if self.position < len(self.calls) else None
        if after != call.node:
            if call.node:
                self.done(call.node, self.values)
            self.values = {}


def without(summands: Any, place: int, in_place: bool) -> Any:
    """The arguments of a sum, the branch among them multiplied by 0; itself, where the sum is written into it.

    >>> without((torch.ones(1), torch.ones(1)), 0, in_place=False)
    (tensor([0.]), tensor([1.]))
    """
    branch = summands[place]
    nothing = branch.zero_() if in_place and place == 0 else torch.zeros_like(branch)
    return (*summands[:place], nothing, *summands[place + 1:])


def compute(view: View, call: Call, func: Any, args: Any, kwargs: Any, run: Run) -> Any:
    """One operator, over the kept channels only where it mixes them."""
    rule = rule_for(call.op)
    if rule is None or not mixes_removed(view, call):
        return run(func, args, kwargs)
    inputs = list(refs((call.args, call.kwargs)))
    flat, spec = tree_flatten((args, kwargs))
    places = [i for i, value in enumerate(flat) if isinstance(value, torch.Tensor)]
    masks = [view.masks(ref) for ref in inputs]
    sizes = [flat[place].shape for place in places]
    for place, mask in zip(places, masks, strict=True):
        flat[place] = kept_part(flat[place], mask)
    small_args, small_kwargs = tree_unflatten(flat, spec)
    if rule.shrink is not None:
        try:
            small_args, small_kwargs = rule.shrink(lambda i, dim: fitted(masks[i][dim], sizes[i][dim]), small_args,
                                                   small_kwargs)
        except Exception as error:
            raise failed(call.op, "shrink", call.source, error) from error
    try:
        out = run(func, small_args, small_kwargs)
    except Exception as error:
        raise Undecided(f"{call.op} at {call.node!r} must run over the kept channels alone, and raised "
                        f"{type(error).__name__}: {error}; where it takes certain widths only, pass round_to=8, or 16"
                        ) from error
    out = _laid_out(out, view, list(refs(call.outs)))
    return args[0].copy_(out) if call.op.endswith("_") else out


def _laid_out(out: Any, view: View, outs: list[Ref]) -> Any:
    flat, spec = tree_flatten(out)
    tensors = iter(outs)
    for place, value in enumerate(flat):
        if isinstance(value, torch.Tensor):
            flat[place] = _scattered(value, view.masks(next(tensors)))
    return tree_unflatten(flat, spec)


def _scattered(tensor: torch.Tensor, masks: list[np.ndarray]) -> torch.Tensor:
    """The full size again, zeros in between; positions keep the sizes of this run."""
    for dim, mask in enumerate(masks):
        if not mask.all():
            mask = fitted(mask, tensor.shape[dim] * len(mask) // int(mask.sum()))
            full = tensor.new_zeros((*tensor.shape[:dim], len(mask), *tensor.shape[dim + 1:]))
            tensor = full.index_copy_(dim, indices(mask, tensor), tensor)
    return tensor
