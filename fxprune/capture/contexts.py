"""``torch.no_grad()``, ``torch.inference_mode()`` and ``torch.autocast`` in a model's forward: they enclose calls, and
a graph is a list of calls.

Entering and leaving become calls of their own. Each takes a tensor that it does not use: ``torch.fx`` records a call of
a wrapped function only if it has a traced argument, and unpickling a ``GraphModule`` traces it again.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.fx import Graph, Node, wrap

from fxprune.capture.call_forms import entering_file, is_of_torch
from fxprune.capture.patches import (
    CHECKPOINT,
    COMPILING,
    ENTER_AUTOCAST,
    ENTER_INFERENCE,
    EXIT_AUTOCAST,
    EXIT_INFERENCE,
    Patch,
    Replacement,
    instead,
    replaced,
)
from fxprune.ir.normal_tensors import NormalTensors


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entered: list[torch.autocast | torch.inference_mode] = []


_HERE = _Thread()


class _Region(torch.inference_mode):
    """A graph's own, whoever runs it."""


@wrap
def switch_grad(enabled: bool, unused: Any = None) -> bool:
    """From here on gradients are recorded, or not; gives what was before."""
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(enabled)
    return before


@wrap
def restore_grad(before: bool, unused: Any = None) -> None:
    """The end of what `switch_grad` began."""
    torch._C._set_grad_enabled(before)


@wrap
def enter_autocast(device_type: str, dtype: torch.dtype | None, enabled: bool, cache: bool | None, unused: Any = None
                   ) -> torch.autocast:
    """From here on operators choose their precision, until `exit_region`."""
    context = torch.autocast(device_type, dtype, enabled, cache)
    context.__enter__()
    _HERE.entered.append(context)
    return context


@wrap
def enter_inference(enabled: bool, unused: Any = None) -> torch.inference_mode:
    """From here on tensors are those of inference mode, or are not, until `exit_region`."""
    context = _Region(enabled)
    context.__enter__()
    _HERE.entered.append(context)
    return context


@wrap
def exit_region(context: torch.autocast | torch.inference_mode, unused: Any = None) -> None:
    """The end of what `enter_autocast` or `enter_inference` began."""
    if context in _HERE.entered:
        _HERE.entered.remove(context)
    context.__exit__(None, None, None)


CONTEXTS = (switch_grad, restore_grad, enter_autocast, enter_inference, exit_region)


def is_context(node: Node) -> bool:
    return node.op == "call_function" and node.target in CONTEXTS


def is_about_gradients(node: Node) -> bool:
    """Whether a call only says whether gradients are recorded, which changes no value."""
    opening = node.args[0] if node.target is exit_region else node
    return getattr(opening, "target", None) in (switch_grad, restore_grad, enter_inference)


def restoring(forward: Callable[..., Any], graph: Graph) -> Callable[..., Any]:
    """The forward of a graph, such that whatever is raised in it leaves no region entered."""
    if not any(map(is_context, graph.nodes)):
        return forward

    @functools.wraps(forward)
    def restored(*args: Any, **kwargs: Any) -> Any:
        before, depth = torch.is_grad_enabled(), len(_HERE.entered)
        try:
            return forward(*args, **kwargs)
        except BaseException:
            while len(_HERE.entered) > depth:
                exit_region(_HERE.entered[-1])
            torch.set_grad_enabled(before)
            raise

    return restored


def recorded_regions(record: Callable[..., Node]) -> dict[Patch, Replacement]:
    """Let ``torch.autocast`` and ``torch.inference_mode`` call ``record(function, *args)`` as they begin and end.

    Inference mode is that of the capture throughout; what Python may ask for is whether gradients are recorded."""
    nodes: dict[int, tuple[Node, bool]] = {}

    def autocast(enter: Any, context: torch.autocast) -> Any:
        nodes[id(context)] = record(enter_autocast, context.device, context.fast_dtype, context._enabled,
                                    context._cache_enabled), False
        return enter(context)

    def cast(leave: Any, context: torch.autocast, *error: Any) -> Any:
        record(exit_region, nodes.pop(id(context))[0])
        return leave(context, *error)

    def inference(enter: Any, context: torch.inference_mode) -> Any:
        if _is_inner(context):
            return enter(context)
        nodes[id(context)] = record(enter_inference, context.mode), torch.is_grad_enabled()
        return _record_gradients(not context.mode)

    def inferred(leave: Any, context: torch.inference_mode, *error: Any) -> Any:
        if id(context) not in nodes:
            return leave(context, *error)
        node, before = nodes.pop(id(context))
        record(exit_region, node)
        return _record_gradients(before)

    return {ENTER_AUTOCAST: autocast, EXIT_AUTOCAST: cast, ENTER_INFERENCE: inference, EXIT_INFERENCE: inferred}


def _is_inner(context: torch.inference_mode) -> bool:
    """Whether it is entered by this package, or by torch inside of a function (`torch.func`), and by no model."""
    return isinstance(context, NormalTensors) or not isinstance(context, _Region) and is_of_torch(entering_file())


def _record_gradients(enabled: bool) -> None:
    with torch._C.DisableTorchFunction():
        torch._C._set_grad_enabled(enabled)


def compiling(wanted: bool) -> AbstractContextManager[Any]:
    """``torch.compiler.is_compiling()`` says so, where that is wanted: libraries ask it before they read data."""
    return replaced({COMPILING: instead(lambda: True)}) if wanted else nullcontext()


def _unchecked(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of what checkpointing does around a function: nothing."""
    yield


UNCHECKED = {CHECKPOINT: instead(_unchecked)}


def without_checkpoints() -> AbstractContextManager[Any]:
    """Checkpointed functions simply run."""
    return replaced(UNCHECKED)


def without_regions() -> AbstractContextManager[Any]:
    """Regions of mixed precision and of inference mode are entered by nobody: every operator takes its operands as they
    are, in the mode of the run."""
    inner: set[int] = set()

    def entered(enter: Any, context: torch.inference_mode) -> Any:
        if not _is_inner(context):
            return None
        inner.add(id(context))
        return enter(context)

    def left(leave: Any, context: torch.inference_mode, *error: Any) -> Any:
        if id(context) not in inner:
            return None
        inner.discard(id(context))
        return leave(context, *error)

    return replaced({ENTER_AUTOCAST: instead(lambda context: context),
                     EXIT_AUTOCAST: instead(lambda context, *error: False),
                     ENTER_INFERENCE: entered, EXIT_INFERENCE: left})


def running(differentiates: bool) -> AbstractContextManager[Any]:
    """Inference mode, in which composite operators arrive whole; a model that differentiates needs gradients."""
    return torch.inference_mode(not differentiates)
