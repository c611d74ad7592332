"""JSON from files that somebody else may have written: no repeated keys, no NaN, nothing that takes long to read."""

import json
import math
from collections import Counter
from typing import Any

# Lists and objects inside one another, all of them, and the digits of an integer.
DEPTH, CONTAINERS, DIGITS = 64, 2 ** 20, 20


def parsed(text: str | bytes) -> Any:
    """The document.

    Raises:
        ValueError: what is wrong, to be put behind the name of the file.

    >>> parsed('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parsed('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key 'a' is duplicated
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    # Before they are made: a bracket of three bytes would become a list of sixty.
    if text.count("[") + text.count("{") > CONTAINERS:
        raise ValueError(f"it has more than {CONTAINERS:,} lists and objects")
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant,
                              parse_int=_integer)
    except RecursionError:
        raise ValueError(_DEEP) from None
    check_depth(document)
    return document


def check_depth(document: Any) -> None:
    """Lists and objects are nested at most ``DEPTH`` deep, so that whatever walks them ends.

    Raises:
        ValueError: they are not.
    """
    level = [document]
    for _ in range(DEPTH):
        level = [item for value in level for item in _items(value)]
        if not level:
            return
    raise ValueError(_DEEP)


_DEEP = f"it is nested too deeply (more than {DEPTH} levels)"


def _items(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [item for item in inner if isinstance(item, (dict, list, tuple))]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        again = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {again[:80]!r} is duplicated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is not a number that may stand here")
    return number


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"{text[:40]} is not a number that may stand here")
    return int(text)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that may stand here")
