"""Lists of indices as text that a reviewer can read and a diff can show: ``"0-15,18,20-23"``."""

import re
from collections.abc import Sequence

import numpy as np

# Indices in one list.
MOST = 2 ** 24
_PART = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def to_text(indices: Sequence[int]) -> str:
    """Ascending runs of three and more as ``first-last``; the order is kept.

    >>> to_text([0, 1, 2, 3, 7, 9, 10]), to_text([5, 3, 0, 1, 2]), to_text([])
    ('0-3,7,9,10', '5,3,0-2', '')
    """
    parts: list[str] = []
    start = 0
    for end in range(1, len(indices) + 1):
        if end < len(indices) and indices[end] == indices[end - 1] + 1:
            continue
        first, last = indices[start], indices[end - 1]
        parts += [f"{first}-{last}"] if end - start > 2 else map(str, indices[start:end])
        start = end
    return ",".join(parts)


def count(text: str) -> int:
    """How many indices a text stands for, without writing them out.

    >>> count("0-15,18"), count("5,3,0-2")
    (17, 5)
    """
    found = filter(None, map(_PART.fullmatch, text.split(",")))
    return sum(max(0, int(match[2] or match[1]) - int(match[1])) + 1 for match in found)


def from_text(text: str, length: int) -> tuple[int, ...]:
    """The indices, each in [0, length) and none twice.

    Raises:
        ValueError: what is wrong, to be put behind the place where it is wrong.

    >>> from_text("5,3,0-2", 6)
    (5, 3, 0, 1, 2)
    >>> from_text("0-6", 6)
    Traceback (most recent call last):
    ValueError: index 6 is out of range, since the length is 6
    """
    indices: list[int] = []
    for part in text.split(",") if text else ():
        match = _PART.fullmatch(part)
        if not match:
            raise ValueError(f"{part[:40]!r} is neither an index nor a range such as '0-15'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part!r} runs backwards; list its indices one by one")
        # Before it is written out: a file must not make us allocate what it claims.
        if last >= length:
            raise ValueError(f"index {last} is out of range, since the length is {length}")
        if len(indices) + last - first >= min(length, MOST):
            raise ValueError(f"an index is repeated in {text[:60]!r}, or there are more than {MOST:,}")
        indices.extend(range(first, last + 1))
    found, counts = np.unique(np.array(indices, np.int64), return_counts=True)
    if len(found) != len(indices):
        raise ValueError(f"index {found[counts.argmax()]} is repeated")
    return tuple(indices)
