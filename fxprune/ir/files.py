"""Reading and writing small files: whole or not at all, and never more than is sensible."""

import contextlib
import os
from pathlib import Path

from fxprune.errors import FxpruneError, PlanError

LIMIT = 128 * 2 ** 20


def write_text(path: str | os.PathLike[str], text: str, what: str = "the plan",
               error: type[FxpruneError] = PlanError, parents: bool = False) -> None:
    """Replace the file in one step: a reader, or a crash, meets the old text or the new one.

    Args:
        path: of a file, in an existing folder unless ``parents``, which makes it.
        text: its new contents.
        what, error: for the refusal: the subject of its sentence, and its class.

    Raises:
        FxpruneError: the folder is missing, or cannot be written to.
    """
    # Through links, so that a linked file is replaced where it lies.
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as failure:
        raise error(f"{what} cannot be written to {os.fspath(path)!r} ({failure.strerror}); name a file in "
                    f"{'a' if parents else 'an existing'} folder that you may write to") from failure
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_text(path: str | os.PathLike[str], limit: int = LIMIT) -> str:
    """The text (UTF-8) of a plan's file, of at most ``limit`` bytes.

    Raises:
        PlanError: it cannot be read, is too large, or is no text.
    """
    place = os.fspath(path)
    try:
        if not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "no file"
            raise PlanError(f"a plan is read from a file, but {place!r} is {kind}; name the file that plan.save wrote")
        raw = read_limited(path, limit)
    except OSError as error:
        raise PlanError(f"the plan cannot be read from {place!r} ({error.strerror})") from error
    if raw is None:
        raise PlanError(f"a plan file must not be larger than {limit:,} bytes, but {place!r} is; is it another file?")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"damaged plan file: {place!r} must be UTF-8 text, got byte {raw[error.start]:#04x} at "
                        f"{error.start}; is it another file?") from error


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes | None:
    """A file's bytes; None where there are more than ``limit``, which are not read."""
    with open(path, "rb") as file:
        raw = file.read(limit + 1)
    return raw if len(raw) <= limit else None
