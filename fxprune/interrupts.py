"""Ctrl-C while the command line still imports PyTorch, which takes seconds: the process ends, without a traceback.

`fxprune.cli` catches an interrupt once it runs. Before, an exception would be raised somewhere inside of the packages
that are imported, of which some catch it and fail of something else later. So the signal keeps its own way there, which
is to end the process; where fxprune is the program (``fxprune``, ``python -m fxprune``), and nowhere else.
"""

import signal
import sys
import threading
from pathlib import Path


def is_program(words: list[str]) -> bool:
    """Whether a command line runs fxprune.

    >>> is_program(["python", "-m", "fxprune", "groups"]), is_program(["python", "/venv/bin/fxprune", "groups"])
    (True, True)
    >>> is_program(["python", "train.py"])
    False
    """
    return any(pair == ("-m", "fxprune") for pair in zip(words, words[1:], strict=False)) or \
        any(Path(word).stem == "fxprune" for word in words[:2])


def _replaced(before: object, after: object) -> bool:
    """Handle the signal another way; a parent's wish that it be ignored stays, and threads have no say in it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not before:
        return False
    signal.signal(signal.SIGINT, after)  # type: ignore[arg-type]
    return True


def raise_from_now() -> None:
    """All is imported: from here on an interrupt is a ``KeyboardInterrupt``."""
    if _ENDS:
        _replaced(signal.SIG_DFL, signal.default_int_handler)


_ENDS = is_program(sys.orig_argv) and _replaced(signal.default_int_handler, signal.SIG_DFL)
