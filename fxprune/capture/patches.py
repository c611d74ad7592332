"""What is replaced in PyTorch while a model runs under our eyes, and only in the thread that asks for it.

A function gives way to a dispatcher, which asks whether this very thread has a replacement and else does what was there
before. Dispatchers stand there while any thread has a replacement; the last one to leave puts the originals back,
whatever was raised. Nothing else in this package replaces anything.
"""

import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint


@dataclass(frozen=True, eq=False)
class Patch:
    """A function of PyTorch that may be replaced: attribute ``name`` of ``owner``, and what breaks without it."""

    owner: Any
    name: str
    why: str

    @property
    def original(self) -> Callable[..., Any]:
        """The function itself (unbound), installed or not."""
        installed = _INSTALLED.get(self)
        return _function(installed[1] if installed else inspect.getattr_static(self.owner, self.name))

    def dispatcher(self, raw: Any) -> Any:
        """What stands there meanwhile."""
        original = _function(raw)

        @functools.wraps(raw)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            replacement = _HERE.replacements.get(self)
            return original(*args, **kwargs) if replacement is None else replacement(original, *args, **kwargs)

        return classmethod(dispatch) if isinstance(raw, _CLASS_METHODS) else dispatch


@dataclass(frozen=True, eq=False)
class Attribute(Patch):
    """What the owner's instances hold under that name; a replacement gets what reads it, and the instance."""

    @property
    def original(self) -> Callable[..., Any]:
        return self._held

    def dispatcher(self, raw: Any) -> Any:
        def read(instance: Any) -> Any:
            replacement = _HERE.replacements.get(self)
            return self._held(instance) if replacement is None else replacement(self._held, instance)

        return property(read, lambda instance, value: vars(instance).update({self.name: value}),
                        lambda instance: vars(instance).pop(self.name))

    def _held(self, instance: Any) -> Any:
        if self.name not in vars(instance):
            raise AttributeError(self.name)  # its own ``__getattr__`` may know
        return vars(instance)[self.name]


# What torch runs around a checkpointed function, by its name in the installed version.
_CHECKPOINTING = next(name for name in ("_checkpoint_without_reentrant_generator_impl",
                                        "_checkpoint_without_reentrant_generator") if hasattr(checkpoint, name))

MODULE_CALL = Patch(nn.Module, "__call__", "modules become nodes of the graph, or places on the tape")
APPLY = Patch(torch.autograd.Function, "apply", "a user's autograd function stays one, with its own backward")
ENTER_AUTOCAST = Patch(torch.autocast, "__enter__", "regions of mixed precision stand in the graph")
EXIT_AUTOCAST = Patch(torch.autocast, "__exit__", "regions of mixed precision stand in the graph")
ENTER_INFERENCE = Patch(torch.inference_mode, "__enter__", "regions of inference mode stand in the graph")
EXIT_INFERENCE = Patch(torch.inference_mode, "__exit__", "regions of inference mode stand in the graph")
ATTENTION = Patch(nn.MultiheadAttention, "forward", "attention is written out, so that its heads can be pruned")
FAST_PATH = Patch(torch.backends.mha, "get_fastpath_enabled", "transformer layers run operator by operator")
OVERRIDDEN = Patch(nn.functional, "has_torch_function", "functions that are entered run their own Python")
BATCH_SIZE = Patch(nn.functional, "_verify_batch_size", "batch norm in training mode takes a batch of one")
COMPILING = Patch(torch.compiler, "is_compiling", "libraries ask it before they read data")
CHECKPOINT = Patch(checkpoint, _CHECKPOINTING, "checkpointed functions simply run")
TRAINING = Attribute(nn.Module, "training", "a model that does not ask for its mode has one graph for both")
PATCHES = (MODULE_CALL, APPLY, ENTER_AUTOCAST, EXIT_AUTOCAST, ENTER_INFERENCE, EXIT_INFERENCE, ATTENTION, FAST_PATH,
           OVERRIDDEN, BATCH_SIZE, COMPILING, CHECKPOINT, TRAINING)

_CLASS_METHODS = (classmethod, types.ClassMethodDescriptorType)

# Gets the original and then its arguments.
Replacement = Callable[..., Any]


class _Thread(threading.local):
    def __init__(self) -> None:
        self.replacements: dict[Patch, Replacement] = {}


_HERE = _Thread()
_LOCK = threading.RLock()
_USERS: set[int] = set()
_INSTALLED: dict[Patch, tuple[Any, Any, bool]] = {}  # the dispatcher, what was there, whether the owner's own


@contextmanager
def replaced(functions: Mapping[Patch, Replacement]) -> Iterator[None]:
    """In this thread, call each replacement with the original and its arguments.

    >>> with replaced({COMPILING: lambda original: True}):
    ...     torch.compiler.is_compiling()
    True
    >>> torch.compiler.is_compiling()
    False
    """
    before = _HERE.replacements
    user = {**before, **functions}
    try:
        _join(id(user))
        _HERE.replacements = user
        yield
    finally:
        _HERE.replacements = before
        _leave(id(user))


def replacements() -> Mapping[Patch, Replacement]:
    """What is replaced in this thread; one that works on its behalf enters the same."""
    return dict(_HERE.replacements)


def instead(function: Callable[..., Any]) -> Replacement:
    """A replacement that does without the original."""
    return lambda original, *args, **kwargs: function(*args, **kwargs)


def _join(user: int) -> None:
    with _LOCK:
        _USERS.add(user)
        for patch in PATCHES:
            if patch not in _INSTALLED:
                raw = _static(patch.owner, patch.name)
                _INSTALLED[patch] = (patch.dispatcher(raw), raw, patch.name in vars(patch.owner))
                setattr(patch.owner, patch.name, _INSTALLED[patch][0])


def _static(owner: Any, name: str) -> Any:
    """What a class or module holds, or inherits, under a name; ``inspect.getattr_static`` looks at metaclasses, too,
    and takes long."""
    return next((vars(base)[name] for base in (owner, *getattr(owner, "__mro__", ())) if name in vars(base)), None)


def _leave(user: int) -> None:
    with _LOCK:
        _USERS.discard(user)
        for patch, (dispatcher, raw, own) in [] if _USERS else list(_INSTALLED.items()):
            # Somebody may have wrapped the dispatcher meanwhile: then it stays, and hands everything on.
            if vars(patch.owner).get(patch.name) is dispatcher:
                setattr(patch.owner, patch.name, raw) if own else delattr(patch.owner, patch.name)
            del _INSTALLED[patch]


def _function(raw: Any) -> Callable[..., Any]:
    """Takes the class, or the instance, first."""
    return (lambda owner, *args, **kwargs: raw.__get__(None, owner)(*args, **kwargs)) \
        if isinstance(raw, _CLASS_METHODS) else raw
