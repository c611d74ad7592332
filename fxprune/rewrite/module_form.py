"""The module form of a graph: the attributes of the user's own class set so that its Python comes to the numbers that
the plan wants, and the run of the smaller copy held against the graph, call by call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from fxprune.capture.model_walk import named_modules
from fxprune.capture.retracing import retraced
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.replay import InStep, Place
from fxprune.coupling.view import View
from fxprune.ir.tape import TensorDim
from fxprune.rewrite.attention_module import attention_set
from fxprune.rewrite.attribute_values import solved
from fxprune.rewrite.call_numbers import Calls, calls_under
from fxprune.rewrite.holding import Held, compared, predicted
from fxprune.rewrite.module_attributes import assign
from fxprune.rewrite.module_sizes import remembered, remembered_uncalled


def formed(model: nn.Module, small: nn.Module, analysis: Analysis, kept: Mapping[str, Any]) -> Held:
    """Set what the modules of a copy with sliced parameters remember of their sizes; what cannot be is returned.

    Args:
        model: the original.
        small: its copy; on the meta device, or with true tensors.
        analysis: of a captured graph, with the runs that show where numbers come from.
        kept: group name -> the channels that stay.
    """
    captured = analysis.captured
    modes = {id(traced): mode for mode, traced in reversed(captured.modes.items())}
    least = analysis.views({name: () for name in analysis.coupling.prunable})
    graphs = [calls_under(view, least[number], captured.attributed[modes[id(view.traced)]], number)
              for number, view in enumerate(analysis.views(kept))]
    values = solved([equation for calls in graphs for equation in calls.equations()],
                    [fact for calls in graphs for fact in calls.facts()])
    held: Held = {}
    for_values: Held = {}
    for calls in graphs:
        first, then = predicted(calls, values)
        for_values |= first
        held |= calls.refused | _leaves_set(model, small, calls.view) | attention_set(model, small, calls) | then
    if for_values or held:
        return for_values or _finest(held, graphs)
    assign(small, values)
    for calls in graphs:
        _tables_set(small, calls.tables)
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    for calls in graphs:
        held |= compared(calls, retraced(small, captured, modes[id(calls.view.traced)], device))
    return _finest(held, graphs)


def _finest(held: Held, graphs: Sequence[Calls]) -> Held:
    """What holds least: with two dimensions in step, or one that stays, the other numbers may come out right. Which
    indices go together is certain where two are of one length, and a choice where several go with each."""
    def alike(place: Place) -> bool:
        return isinstance(place, InStep) and \
            len({graphs[at.tape].size(at) for at in (place.longer, place.shorter)}) == 1

    ways: tuple[Callable[[Place], bool], ...] = (alike, lambda place: isinstance(place, InStep),
                                                 lambda place: isinstance(place, TensorDim))
    for holds_least in ways:
        found: Held = {place: why for place, why in held.items() if holds_least(place)}
        if found:
            return found
    return held


def _leaves_set(model: nn.Module, small: nn.Module, view: View) -> Held:
    """What layers of torch.nn remember; one that is called twice must remember the same."""
    held: Held = {}
    seen: set[int] = set()
    for node in view.traced.graph.nodes:
        if node.op != "call_module" or node.target in view.traced.added:
            continue
        original, module = model.get_submodule(node.target), small.get_submodule(node.target)
        first = next((arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, Node)), None)
        into = view.refs(first.name).get(()) if first is not None else None
        out = next(iter(view.refs(node.name).values()), None)
        masks = [[] if ref is None else view.masks(ref) for ref in (into, out)]
        changed = remembered(original, module, *masks)
        if changed and id(module) in seen:
            held[node.name] = f"{node.target}: a module that is called twice would have to serve two widths"
        seen.add(id(module))
        vars(module).update(changed)
    for _, module in named_modules(small):
        if id(module) not in seen:
            vars(module).update(remembered_uncalled(module))
    return held


def _tables_set(small: nn.Module, tables: Mapping[str, torch.Tensor]) -> None:
    for name, value in tables.items():
        path, _, leaf = name.rpartition(".")
        owner = small.get_submodule(path)
        setattr(owner, leaf, value.to(getattr(owner, leaf)))
