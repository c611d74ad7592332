"""Texts that a model's Python makes of tensors.

``f"tokens: {n}"`` reads a tensor's contents. Within a call that checks something, or a ``raise``, it is a message that
nobody looks into, and needs no contents; anywhere else a text may decide on something.
"""

import ast
import linecache
import types
from functools import cache

# In place of what is not known.
UNKNOWN = "<contents of a tensor>"
# Functions that are given messages, by their last name.
TOLD = {"torch_compilable_check", "check", "_check", "_check_with", "_check_value", "_check_tensor_all",
        "_check_tensor_all_with", "_assert", "warn", "warning", "warning_once", "info", "debug", "error", "log",
        "print"}


def in_message(frame: types.FrameType) -> bool:
    """Whether what a frame just evaluates is part of a message."""
    start, end = _position(frame)
    return any(first <= start and end <= last for first, last in _messages(frame.f_code.co_filename))


def _position(frame: types.FrameType) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the present instruction begins and ends in the source."""
    places = list(frame.f_code.co_positions()) if hasattr(frame.f_code, "co_positions") else []
    here = places[frame.f_lasti // 2] if places else (frame.f_lineno,) * 2 + (0, 0)
    line, last = here[0] or frame.f_lineno, here[1] or frame.f_lineno
    return (line, here[2] or 0), (last, here[3] or 0)


@cache
def _messages(file: str) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """From where to where the messages of a file stand."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    found = [part for node in ast.walk(tree) for part in _told(node)]
    return tuple(((node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0))
                 for node in found)


def _told(node: ast.AST) -> list[ast.expr]:
    """The texts that a raise, or a call that is given a message, holds."""
    if isinstance(node, ast.Raise):
        return [node.exc] if node.exc is not None else []
    if not isinstance(node, ast.Call):
        return []
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    given = [*node.args, *(keyword.value for keyword in node.keywords)] if name in TOLD else []
    return [arg for arg in given if isinstance(arg, (ast.JoinedStr, ast.Lambda))]
