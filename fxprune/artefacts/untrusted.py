"""Reading files that somebody else may have written: where they lie, how large they are, and JSON."""

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from fxprune.errors import ArtefactError

# Bytes of one file.
LIMIT = 64 * 2 ** 30


def inside(folder: str | os.PathLike, name: str) -> Path:
    """A file of a folder, which must lie in that folder itself.

    Raises:
        ArtefactError: it is missing, no plain file, or a link that leads elsewhere.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ArtefactError(f"an artefact is a folder, but {os.fspath(folder)!r} is none; name the folder that "
                            "fxprune.save wrote")
    path = place / name
    if not path.exists():
        raise ArtefactError(f"the artefact {os.fspath(folder)!r} has no {name}; its report.md says why, or the folder "
                            "is not one that fxprune.save wrote")
    if not path.is_file() or path.resolve().parent != place.resolve():
        raise ArtefactError(f"{name} must be a plain file in the artefact's own folder, and is not")
    return path


def size_of(path: Path, limit: int = LIMIT) -> int:
    """The file's size in bytes.

    Raises:
        ArtefactError: it is larger than ``limit``.
    """
    size = path.stat().st_size
    if size > limit:
        raise ArtefactError(f"{path.name} must not be larger than {limit:,} bytes, got {size:,}")
    return size


def parsed(text: bytes, name: str) -> Any:
    """JSON without duplicated keys, NaN or numbers too large to be meant.

    Raises:
        ArtefactError: it is not.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_float=_finite,
                          parse_constant=_constant, parse_int=_integer)
    except RecursionError:
        raise ArtefactError(f"damaged file: {name} is nested too deeply") from None
    except ValueError as error:
        raise ArtefactError(f"damaged file: {name} is not valid JSON ({str(error)[:200]})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        again = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {again[:80]!r} is duplicated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= 2 ** 63:
        raise ValueError(f"{text[:40]} is too large")
    return int(text)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that may stand here")
