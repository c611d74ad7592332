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
    >>> is_program(["python", "train.py"]), is_program(["python", "-m", "pytest", "-m", "fxprune"])
    (False, False)
    """
    if "-m" in words:
        return words[words.index("-m") + 1:][:1] == ["fxprune"]
    return any(Path(word).stem == "fxprune" for word in words[:2])


def raise_from_now() -> None:
    """All is imported: from here on an interrupt is a ``KeyboardInterrupt``."""
    if _ENDS:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A parent's wish that the signal be ignored stays, and no thread but the main one has a say in it.
_ENDS = is_program(sys.orig_argv) and threading.current_thread() is threading.main_thread() \
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _ENDS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
