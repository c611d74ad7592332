"""How calls are written in a graph, and the bare values that they are made with."""

import contextlib
import dataclasses
import operator
import os
import sys
import types
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import torch
from torch import nn

from fxprune.capture.sizes import Fraction, Size, plain

_LIBRARY = (os.path.join(*torch.__path__, ""), os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
            "<")
# Where torch's contexts enclose the functions that they decorate.
_DECORATING = torch.no_grad.__call__.__code__.co_filename
# Modules of torch.nn whose Python is entered: their parts are what is pruned.
_ENTERED = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder,
            nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
_OPERATORS = {"__getitem__": operator.getitem, "__setitem__": operator.setitem, "__matmul__": operator.matmul,
              "__floordiv__": operator.floordiv, "__mod__": operator.mod, "__pow__": operator.pow,
              "__and__": operator.and_, "__or__": operator.or_, "__xor__": operator.xor,
              "__invert__": operator.invert, "__iadd__": operator.iadd, "__imul__": operator.imul}
_REVERSED = {"__rsub__": operator.sub, "__rpow__": operator.pow, "__rdiv__": operator.truediv,
             "__rtruediv__": operator.truediv, "__rfloordiv__": operator.floordiv, "__rmatmul__": operator.matmul,
             "__rmod__": operator.mod}


# What arguments mostly are, and what has nothing to look for inside.
PLAIN = {int, float, bool, str, type(None), torch.Tensor, nn.Parameter}


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one node: those of ``torch.nn`` that hold no other modules' logic, and scripted ones."""
    return _is_leaf(type(module))  # type: ignore[arg-type]


@lru_cache(maxsize=512)
def _is_leaf(kind: type) -> bool:
    if issubclass(kind, torch.jit.ScriptModule):
        return True
    return kind.__module__.startswith(("torch.nn.modules", "torch.ao.nn")) and not issubclass(kind, _ENTERED)


def spelling(func: Any, name: str, args: Any) -> tuple[str, Any, Any]:
    """How the call is written in the graph: a method, an operator or a function."""
    if name in _OPERATORS:
        return "call_function", _OPERATORS[name], args
    if name in _REVERSED:
        return "call_function", _REVERSED[name], (args[1], args[0])
    # ``x ** 2`` arrives as a wrapper around ``Tensor.pow`` that goes by its name, and that no code could name.
    inner = getattr(func, "__wrapped__", func)
    if getattr(torch.Tensor, name, None) is func or isinstance(inner, types.MethodDescriptorType):
        return "call_method", name, args
    return "call_function", func, args


def bare(tree: Any) -> Any:
    """Arguments as the operator takes them: plain numbers instead of sizes."""
    if type(tree) in PLAIN:
        return tree
    if isinstance(tree, (Size, Fraction)):
        return plain(tree)
    if isinstance(tree, dict) and type(tree) is dict:
        return {key: bare(item) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*map(bare, (tree.start, tree.stop, tree.step)))
    if type(tree) in (list, tuple):
        return type(tree)(map(bare, tree))
    if isinstance(tree, torch.Size):
        return torch.Size(map(bare, tree))
    return tree


def holds_tensors(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, dict):
        return any(map(holds_tensors, value.values()))
    return isinstance(value, (list, tuple)) and any(map(holds_tensors, value))


def is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def frames() -> Iterator[types.FrameType]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def user_frame() -> types.FrameType:
    """The innermost frame that belongs neither to torch nor to fxprune."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and _of_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame or sys._getframe(1)


def entering_file() -> str:
    """The file whose ``with``, or whose decorated function, is being entered through what this package has replaced."""
    frame = next(frame for frame in frames() if frame.f_code.co_filename != contextlib.__file__
                 and not frame.f_code.co_filename.startswith(_LIBRARY[1]))
    if frame.f_code.co_filename == _DECORATING:
        return getattr(getattr(frame.f_locals.get("func"), "__code__", None), "co_filename", "")
    return frame.f_code.co_filename


def is_of_torch(file: str) -> bool:
    return file.startswith(_LIBRARY[0])


def user_line() -> str:
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@cache
def _of_library(file: str) -> bool:
    return file.startswith(_LIBRARY)
