"""Errors of fxprune's own Python, told from those of the model that it runs.

Where a capture fails, another way is taken: true tensors, other lengths, module mode. What a model raises may well lead
there; what our own Python raises is a bug, and must not pass for a trait of the model.
"""

import dis
import os
from types import TracebackType

from fxprune.errors import RuleError
from fxprune.rules.bugs import Bug, frozen_by

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
# The folders that run a user's Python.
_RUNNING = ("capture", "rewrite")
# How a model's own call is handed on, ``func(*args, **kwargs)``: what torch raises there is the model's.
_HANDED_ON = "CALL_FUNCTION_EX"


def own_bugs(error: Exception) -> list[Bug]:
    """What to call an error that our own Python has raised; nothing for one that came from elsewhere.

    Raises:
        RuleError: it is one, where bugs are raised.

    >>> try:
    ...     {}["of the model"]
    ... except KeyError as error:
    ...     own_bugs(error)
    []
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    # C++ raises RuntimeError and leaves no frame; everything that we raise on purpose has a name of ours.
    if last is None or isinstance(error, RuntimeError) or type(error).__module__.startswith("fxprune"):
        return []
    file = last.tb_frame.f_code.co_filename
    folder = file.removeprefix(_PACKAGE).partition(os.sep)[0]
    if not file.startswith(_PACKAGE) or folder not in _RUNNING or _hands_on(last):
        return []
    place = f"{os.path.basename(file)}:{last.tb_lineno}"
    return [frozen_by(RuleError(f"a bug: {folder} raised {type(error).__name__}: {error} (at {place}); please report "
                                "it to fxprune, with the model"))]


def _hands_on(frame: TracebackType) -> bool:
    return dis.opname[frame.tb_frame.f_code.co_code[frame.tb_lasti]] == _HANDED_ON
