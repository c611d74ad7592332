"""Reading and writing small text files: whole or not at all, and never more than is sensible."""

import contextlib
import os
from pathlib import Path

from fxprune.errors import PlanError

LIMIT = 256 * 2 ** 20


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replace the file in one step: a reader, or a crash, meets the old text or the new one.

    Raises:
        PlanError: the folder is missing, or cannot be written to.
    """
    # Through links, so that a linked file is replaced where it lies.
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        with open(part, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise PlanError(f"the plan cannot be written to {os.fspath(path)!r} ({error.strerror}); name a file in an "
                        "existing folder that you may write to") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_text(path: str | os.PathLike, limit: int = LIMIT) -> str:
    """The file's text (UTF-8), of at most ``limit`` bytes.

    Raises:
        PlanError: it cannot be read, is too large, or is no text.
    """
    place = os.fspath(path)
    try:
        if not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "no file"
            raise PlanError(f"a plan is read from a file, but {place!r} is {kind}; name the file that plan.save wrote")
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise PlanError(f"the plan cannot be read from {place!r} ({error.strerror})") from error
    if len(raw) > limit:
        raise PlanError(f"a plan file must not be larger than {limit:,} bytes, but {place!r} is; is it another file?")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"damaged plan file: {place!r} must be UTF-8 text, got byte {raw[error.start]:#04x} at "
                        f"{error.start}; is it another file?") from error
