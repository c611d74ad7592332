"""Writing a folder in one step: beside its place, then exchanged as a whole.

What is being written lies in ``.NAME.fxprune-part`` beside ``NAME``, and the folder that it replaces waits in
``.NAME.fxprune-old``. Both names are known, so that the next writer finds what a killed one left and clears it away. A
lock on the staging folder, which the system releases when a process dies, tells the killed from the living.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from fxprune.errors import InputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:
    # Not on Windows: there, writers of one folder are not told apart.
    fcntl = None


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the target's place when the block ends; after an error, or a crash,
    the old one stays.

    Args:
        target: absolute; made, or replaced with all that it holds.

    Raises:
        InputError: another writer is at it.
        OSError: the folder cannot be made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, old = _beside(target, "part"), _beside(target, "old")
    lock = _owned(part, target)
    try:
        _clear(part, old, target)
        yield part
        _exchange(part, old, target)
    except BaseException:
        # Only then: after the exchange, the name may be another writer's already.
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f".{target.name}.fxprune-{word}")


def _owned(part: Path, target: Path) -> int | None:
    """The staging folder, made or found, and locked by this process alone."""
    while True:
        part.mkdir(exist_ok=True)
        if fcntl is None:
            return None
        handle = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former owner may have moved it into place since it was opened.
            if part.exists() and os.path.samestat(os.fstat(handle), os.stat(part)):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"a folder is written by one writer at a time, but another one is writing "
                             f"{os.fspath(target)!r} at this moment; wait for it, or name another folder") from None
        os.close(handle)


def _clear(part: Path, old: Path, target: Path) -> None:
    """Away with what a killed writer left; the old folder goes back if nothing took its place."""
    for path in part.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if old.exists() and not target.exists():
        os.rename(old, target)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(part: Path, old: Path, target: Path) -> None:
    """The finished folder in the old one's place; without it there is none for a moment, never half of one."""
    for path in (*part.iterdir(), part):
        flush(path)
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(part, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    flush(target.parent)


def flush(path: Path) -> None:
    """Have the system write a file, or the list of a folder's files, to the disk."""
    # Not every system lets a folder be flushed.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
