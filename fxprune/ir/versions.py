"""Which versions are installed, as plans and folders note them."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed(package: str) -> str:
    """A package's version, or ``"unknown"`` where it is used without being installed.

    >>> installed("no-such-package")
    'unknown'
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
