"""Ctrl-C while the command line still imports PyTorch, which takes seconds: no traceback.

`fxprune.cli` catches an interrupt once it runs; before, only the interpreter's own hook is asked. It is replaced where
fxprune is the program (``fxprune``, ``python -m fxprune``), and nowhere else.
"""

import sys
from pathlib import Path
from types import TracebackType


def is_program(words: list[str]) -> bool:
    """Whether a command line runs fxprune.

    >>> is_program(["python", "-m", "fxprune", "groups"]), is_program(["python", "/venv/bin/fxprune", "groups"])
    (True, True)
    >>> is_program(["python", "train.py"])
    False
    """
    return any(pair == ("-m", "fxprune") for pair in zip(words, words[1:], strict=False)) or \
        any(Path(word).stem == "fxprune" for word in words[:2])


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


if is_program(sys.orig_argv):
    sys.excepthook = _quiet
