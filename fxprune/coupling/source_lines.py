"""Source places, as short as they stay unambiguous."""

import os
import sys


def short(place: str) -> str:
    """A place ``file:line`` relative to the working directory or, for installed packages, to where they are installed.

    >>> short(os.path.join(os.getcwd(), "net.py:12"))
    'net.py:12'
    >>> short("")
    ''
    """
    roots = [os.getcwd(), *sorted(filter(os.path.isabs, sys.path), key=len, reverse=True)]
    for root in roots:
        prefix = root.rstrip(os.sep) + os.sep
        if place.startswith(prefix):
            return place.removeprefix(prefix)
    return place


def at(node: str, source: str) -> str:
    """Node and source in one, either of which may be missing.

    >>> at("add_1", "net.py:12"), at("add_1", ""), at("", "")
    ('add_1 at net.py:12', 'add_1', '')
    """
    return " at ".join(filter(None, (node, short(source))))
