"""Try a random plan before anybody draws one: what cannot be carried out is frozen, with the reason.

In graph mode the calls' literals are rewritten; in module mode a shrunken copy runs in lockstep with the tape. The
first operator that deviates tells which channels it cannot do without.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture import multihead
from fxprune.capture.contexts import running
from fxprune.capture.follower import Astray, Follower
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.model_walk import aliases
from fxprune.capture.observer import results
from fxprune.capture.pytrees import tree_map_only
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.structure import isolated_copy
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.coupling.replay import Place
from fxprune.coupling.view import View
from fxprune.errors import RuleError
from fxprune.ir import example_inputs
from fxprune.ir.example_inputs import Example
from fxprune.ir.tape import Call, refs
from fxprune.planning.composition import compose
from fxprune.rewrite.holding import Held, Raised
from fxprune.rewrite.module_form import formed
from fxprune.rewrite.shrink import remember
from fxprune.rewrite.site import LiteralError, rewritten
from fxprune.rewrite.slicing import slice_all
from fxprune.rules.bugs import frozen_by

# What matrix products of mixtures of experts want rows to be multiples of: 16 bytes, in half precision.
ALIGNED = 8


def random_cut(coupling: Coupling) -> dict[str, np.ndarray]:
    """Half of every group, drawn at random."""
    rng = np.random.default_rng(0)
    return {name: np.sort(rng.permutation(group.size)[:(group.size + 1) // 2])
            for name, group in coupling.prunable.items()}


def uneven_cut(coupling: Coupling, multiple: int = 1) -> dict[str, np.ndarray]:
    """Another share of every group, since a budget keeps another of each: what must shrink in step shows only then.
    Something of each goes.

    Args:
        multiple: of which widths are, where a group is wide enough.
    """
    rng, golden = np.random.default_rng(0), (5 ** 0.5 - 1) / 2
    widths = {}
    for number, (name, group) in enumerate(coupling.prunable.items()):
        width = max(1, min(group.size - 1, round((0.35 + 0.6 * (number * golden % 1)) * group.size)))
        widths[name] = max(multiple, width // multiple * multiple) if group.size > multiple else width
    return {name: np.sort(rng.permutation(group.size)[:widths[name]]) for name, group in coupling.prunable.items()}


def refusals(model: nn.Module, analysis: Analysis) -> dict[Place, str]:
    """Nodes or calls whose channels must be frozen, with the reason; empty where a random plan can be carried out."""
    kept = random_cut(analysis.coupling)
    views = analysis.views(kept)
    if analysis.coupling.mode == "graph":
        return {node: why for view in views for node, why in _literals(view).items()}
    return _lockstep(model, analysis, kept, views[0])


def held_by_python(model: nn.Module, analysis: Analysis) -> dict[Place, str]:
    """Where a shrunken copy of the model's class is wanted: what its Python fixes, and no attribute says otherwise.
    Where the copy raises, an operator may want rows of whole blocks of memory, which no plan should be held to."""
    if not analysis.captured.attributed:
        return {}
    held = _tried(model, analysis, uneven_cut(analysis.coupling))
    if not any(isinstance(why, Raised) for why in held.values()):
        return held
    again = _tried(model, analysis, uneven_cut(analysis.coupling, ALIGNED))
    return held if any(isinstance(why, Raised) for why in again.values()) else again


def _tried(model: nn.Module, analysis: Analysis, kept: Mapping[str, Any]) -> Held:
    keep = compose(analysis.coupling.groups, kept, analysis.coupling.signature, aliases(model))
    memo = slice_all(model, keep)
    if not analysis.captured.real:
        memo = {number: _on_meta(tensor) for number, tensor in memo.items()}
    return formed(model, isolated_copy(model, memo), analysis, kept)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    """Index tables keep their contents, which steer data movement."""
    if not tensor.is_floating_point():
        return tensor
    return nn.Parameter(tensor.to("meta")) if isinstance(tensor, nn.Parameter) else tensor.to("meta")


def _literals(view: View) -> dict[Place, str]:
    found: dict[Place, str] = {}
    for node in view.traced.graph.nodes:
        try:
            rewritten(node, view, lambda value, source: source)
        except LiteralError as error:
            found[error.node] = error.why
        except RuleError as error:
            found[node.name] = frozen_by(error)
    return found


class _Lockstep(Follower):
    """Stands at every operator while it runs; where the run follows the tape strictly, compares the channels of its
    outputs with what the plan predicts."""

    def __init__(self, view: View, strict: bool):
        super().__init__(view.tape, strict)
        self.view = view

    def handle(self, call: Call | None, func: Any, args: Any, kwargs: Any) -> Any:
        if call is None:
            return func(*args, **kwargs)
        # Until the operator has run, the tape stands at it.
        self.position -= 1
        out = func(*args, **kwargs)
        if self.strict:
            self._compare(call, results(func, args, kwargs, out))
        self.position += 1
        return out

    def _compare(self, call: Call, outs: list[torch.Tensor]) -> None:
        recorded = list(refs(call.outs))
        if len(recorded) != len(outs):
            if all(mask.all() for ref in refs(call.args) for mask in self.view.masks(ref)):
                raise Astray("data decides on how many tensors an operator gives")
            raise _Deviates(f"it gives {len(outs)} tensors where it gave {len(recorded)}")
        for ref, tensor in zip(recorded, outs, strict=True):
            for dim, mask in enumerate(self.view.masks(ref)):
                if not mask.all() and tensor.shape[dim] != mask.sum():
                    raise _Deviates(f"its output has {tensor.shape[dim]} channels where {mask.sum()} are planned")


class _Deviates(Exception):
    """An operator gave another size than predicted."""


def _lockstep(model: nn.Module, analysis: Analysis, kept: Mapping[str, Any], view: View) -> dict[Place, str]:
    coupling = analysis.coupling
    keep = compose(coupling.groups, kept, coupling.signature, aliases(model))
    small = isolated_copy(model, slice_all(model, keep)).eval()
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    with untouched_rng(), fresh_caches(model), running(analysis.captured.differentiates), multihead.unfused():
        example = analysis.captured.example or example_inputs.realise(coupling.inputs, device,
                                                                      torch.Generator().manual_seed(0))
        try:
            remember(model, small, view)
            return _stepped(small, tree_map_only(torch.Tensor, torch.clone, example), view, strict=True)
        except LiteralError as error:
            return {error.node: error.why}


def _stepped(small: nn.Module, example: Example, view: View, strict: bool) -> dict[Place, str]:
    """The operator at which the run ends early."""
    mode = _Lockstep(view, strict)
    try:
        with mode:
            small(*example[0], **example[1])
    except Astray:  # data steers its Python another way than before: operators tell no more than whether they run
        return _stepped(small, example, view, strict=False) if strict else {}
    except Exception as error:
        return {min(mode.position, len(mode.calls) - 1): f"a size in the model's Python holds it: {error}"}
    return {}
