"""``torch.no_grad()`` and ``torch.autocast`` in a model's forward: they enclose calls, and a graph is a list of calls.

Entering and leaving become calls of their own. Each takes a tensor that it does not use: ``torch.fx`` records a call of
a wrapped function only if it has a traced argument, and unpickling a ``GraphModule`` traces it again.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.fx import Node, wrap
from torch.utils import checkpoint


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
    return context


@wrap
def exit_autocast(context: torch.autocast, unused: Any = None) -> None:
    """The end of what `enter_autocast` began."""
    context.__exit__(None, None, None)


CONTEXTS = (switch_grad, restore_grad, enter_autocast, exit_autocast)


def is_context(node: Node) -> bool:
    return node.op == "call_function" and node.target in CONTEXTS


@contextmanager
def recorded_autocast(record: Callable[..., Node]) -> Iterator[None]:
    """Let ``torch.autocast`` call ``record(function, *args)`` as it is entered and left."""
    enter, leave = torch.autocast.__enter__, torch.autocast.__exit__
    nodes: dict[int, Node] = {}

    def entered(context: torch.autocast) -> Any:
        nodes[id(context)] = record(enter_autocast, context.device, context.fast_dtype, context._enabled,
                                    context._cache_enabled)
        return enter(context)

    def left(context: torch.autocast, *error: Any) -> Any:
        record(exit_autocast, nodes.pop(id(context)))
        return leave(context, *error)

    with mock.patch.object(torch.autocast, "__enter__", entered), mock.patch.object(torch.autocast, "__exit__", left):
        yield


def compiling(wanted: bool) -> AbstractContextManager[Any]:
    """``torch.compiler.is_compiling()`` says so, where that is wanted: libraries ask it before they read data."""
    return mock.patch.object(torch.compiler, "is_compiling", lambda: True) if wanted else nullcontext()


# What torch runs around a checkpointed function, by its name in the installed version.
_CHECKPOINTING = next(name for name in ("_checkpoint_without_reentrant_generator_impl",
                                        "_checkpoint_without_reentrant_generator") if hasattr(checkpoint, name))


def _unchecked(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of what checkpointing does around a function: nothing."""
    yield


def without_checkpoints() -> AbstractContextManager[Any]:
    """Checkpointed functions simply run."""
    return mock.patch.object(checkpoint, _CHECKPOINTING, _unchecked)
