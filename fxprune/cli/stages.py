"""A line on the error stream for what takes long while the output goes elsewhere, as into a file."""

import contextlib
import sys
import threading
from collections.abc import Iterator

# Seconds: what is over sooner is not worth a line.
DELAY = 2.0


@contextlib.contextmanager
def stage(words: str) -> Iterator[None]:
    """Say what is going on, where whoever looks at the terminal would otherwise see nothing.

    Args:
        words: what is done, in the present: ``"analysing resnet50"``.
    """
    if sys.stdout.isatty():
        yield
        return
    waiting = threading.Timer(DELAY, print, [f"fxprune: {words} …"], {"file": sys.stderr, "flush": True})
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
