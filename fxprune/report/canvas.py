"""A matplotlib figure without pyplot: no global state, no backend chosen for the user."""

import os
from typing import Any

from fxprune.errors import InputError, MissingExtraError

DPI = 120


def figure(what: str, width: float, height: float) -> Any:
    """An empty figure of that many inches.

    Args:
        what: for the message, in the plural.
        width, height: inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"{what} need matplotlib, which is not installed; run: pip install \"fxprune[plots]\""
                                ) from error
    return Figure(figsize=(width, height), layout="constrained")


def write(drawn: Any, path: str | os.PathLike[str] | None) -> Any:
    """Save the figure where there is a path; the suffix decides the format. Returns the figure, for notebooks.

    Raises:
        InputError: the file cannot be written.
    """
    if path is None:
        return drawn
    try:
        drawn.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise InputError(f"path must be a file that can be written, ending in .png, .svg or .pdf, got "
                         f"{os.fspath(path)!r}: {error}") from error
    return drawn
