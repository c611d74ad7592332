"""A latency table as a JSON document, and back. What is read is not trusted: every field is checked."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxprune.errors import FxpruneError, InputError
from fxprune.ir.strict_json import parsed
from fxprune.latency.samples import Sample
from fxprune.latency.target import Target

FORMAT, VERSION = "fxprune latency table", 2
LIMIT = 64 * 2 ** 20
# Far above any real one; a step is a number of channels.
STEP_LIMIT = 4096
TEXTS = ("machine", "backend", "model")


def document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table as JSON: times in milliseconds, ``[median, lower quartile, upper quartile, passes]``."""
    return {"format": FORMAT, "version": VERSION, "target": fields["target"].to_dict(),
            **{name: fields[name] for name in (*TEXTS, "step", "stairs")}, "whole": _times(fields["whole"]),
            "idle": _milliseconds(fields["idle"]),
            "entries": {key: _times(sample) for key, sample in fields["entries"].items()},
            "unpriced": dict(fields["unpriced"])}


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The fields of a table from such a document's file.

    Raises:
        InputError: what is wrong, and where.
    """
    place = os.fspath(path)
    try:
        raw = Path(path).read_bytes() if os.path.isfile(path) and os.path.getsize(path) <= LIMIT else None
    except OSError as error:
        raise InputError(f"the latency table cannot be read from {place!r} ({error.strerror})") from error
    if raw is None:
        raise InputError(f"a latency table is a file of at most {LIMIT:,} bytes, and {place!r} is none; name the file "
                         "that table.save wrote")
    try:
        data = parsed(raw)
    except ValueError as error:
        raise _damaged(f"it must be JSON: {error}") from None
    return _fields(data)


def _fields(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _damaged(f"format must be {FORMAT!r}")
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise _damaged(f"version must be {VERSION}, the only one that this fxprune reads, got {data.get('version')!r}")
    known = {"format", "version", "target", *TEXTS, "step", "stairs", "whole", "idle", "entries", "unpriced"}
    if set(data) != known:
        raise _damaged(f"it must have the keys {', '.join(sorted(known))}, and lacks or adds "
                       f"{', '.join(sorted(map(str, set(data) ^ known)))[:200]}")
    for name in TEXTS:
        if not isinstance(data[name], str):
            raise _damaged(f"{name} must be a string")
    step = data["step"]
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= STEP_LIMIT:
        raise _damaged(f"step must be an integer from 1 to {STEP_LIMIT}, got {step!r:.40}")
    if not isinstance(data["stairs"], bool):
        raise _damaged("stairs must be true or false")
    idle = data["idle"]
    if type(idle) not in (int, float) or not 0 <= idle < math.inf:
        raise _damaged(f"idle must be milliseconds of at least 0, got {idle!r:.40}")
    for name in ("entries", "unpriced"):
        if not isinstance(data[name], dict):
            raise _damaged(f"{name} must be an object")
    if not all(isinstance(reason, str) for reason in data["unpriced"].values()):
        raise _damaged("unpriced must map nodes to reasons")
    try:
        target = Target.from_dict(data["target"])
    except FxpruneError as error:
        raise _damaged(str(error)) from None
    return {"target": target, **{name: data[name] for name in (*TEXTS, "step", "stairs", "unpriced")},
            "whole": _sample("whole", data["whole"]), "idle": idle / 1000,
            "entries": {key: _sample(f"entries[{key[:60]!r}]", value) for key, value in data["entries"].items()}}


def _times(sample: Sample) -> list[float | int]:
    return [*map(_milliseconds, (sample.median, sample.low, sample.high)), sample.count]


def _milliseconds(seconds: float) -> float:
    return float(f"{1000 * seconds:.6g}")


def _sample(place: str, value: Any) -> Sample:
    numbers = isinstance(value, list) and len(value) == 4 and all(type(item) in (int, float) for item in value)
    if not numbers or not all(0 < item < math.inf for item in value) or type(value[3]) is not int:
        raise _damaged(f"{place} must be [median, lower quartile, upper quartile, passes], above zero, "
                       f"got {value!r:.80}")
    middle, low, high, count = value
    if not low <= middle <= high:
        raise _damaged(f"{place} must have its median between its quartiles, got {value!r:.80}")
    return Sample(middle / 1000, low / 1000, high / 1000, count)


def _damaged(what: str) -> InputError:
    return InputError(f"damaged latency table: {what}; restore the file, or measure again with fxprune.latency_table")
