"""``torch.no_grad()`` and ``torch.autocast`` in a model's forward: they enclose calls, and a graph is a list of calls.

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

from fxprune.capture.patches import (
    CHECKPOINT,
    COMPILING,
    ENTER_AUTOCAST,
    EXIT_AUTOCAST,
    Patch,
    Replacement,
    instead,
    replaced,
)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.entered: list[torch.autocast] = []


_HERE = _Thread()


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
    """From here on operators choose their precision, until `exit_autocast`."""
    context = torch.autocast(device_type, dtype, enabled, cache)
    context.__enter__()
    _HERE.entered.append(context)
    return context


@wrap
def exit_autocast(context: torch.autocast, unused: Any = None) -> None:
    """The end of what `enter_autocast` began."""
    if context in _HERE.entered:
        _HERE.entered.remove(context)
    context.__exit__(None, None, None)


CONTEXTS = (switch_grad, restore_grad, enter_autocast, exit_autocast)


def is_context(node: Node) -> bool:
    return node.op == "call_function" and node.target in CONTEXTS


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
            torch.set_grad_enabled(before)
            while len(_HERE.entered) > depth:
                exit_autocast(_HERE.entered[-1])
            raise

    return restored


def recorded_autocast(record: Callable[..., Node]) -> dict[Patch, Replacement]:
    """Let ``torch.autocast`` call ``record(function, *args)`` as it is entered and left."""
    nodes: dict[int, Node] = {}

    def entered(enter: Any, context: torch.autocast) -> Any:
        nodes[id(context)] = record(enter_autocast, context.device, context.fast_dtype, context._enabled,
                                    context._cache_enabled)
        return enter(context)

    def left(leave: Any, context: torch.autocast, *error: Any) -> Any:
        record(exit_autocast, nodes.pop(id(context)))
        return leave(context, *error)

    return {ENTER_AUTOCAST: entered, EXIT_AUTOCAST: left}


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


def without_autocast() -> AbstractContextManager[Any]:
    """Regions of mixed precision are entered by nobody: every operator takes its operands as they are."""
    return replaced({ENTER_AUTOCAST: instead(lambda context: context),
                     EXIT_AUTOCAST: instead(lambda context, *error: False)})


def running(differentiates: bool) -> AbstractContextManager[Any]:
    """Inference mode, in which composite operators arrive whole; a model that differentiates needs gradients."""
    return torch.inference_mode(not differentiates)
