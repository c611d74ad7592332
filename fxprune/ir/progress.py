"""A bar for what takes long: in a terminal and in a notebook, and nothing at all in a log."""

import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")
# Seconds: what is over sooner shows no bar.
DELAY = 2.0


def progress(items: Iterable[Item], what: str) -> Iterable[Item]:
    """The items, with a bar on the error stream while they are worked through.

    Args:
        items: batches; the bar has an end where they have a length.
        what: in a word or two.

    >>> list(progress([1, 2], "calibration"))
    [1, 2]
    """
    # A notebook's error stream is no terminal, and tqdm would take it for a log.
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return items
    from tqdm.auto import tqdm

    bar: Iterable[Item] = tqdm(items, desc=what, unit="batch", delay=DELAY, leave=False)
    return bar
