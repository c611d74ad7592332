"""Rows of a benchmark as lines of JSON, written as soon as each is measured: a run that is broken off goes on."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")


def read(path: Path, row_of: Callable[[str], Row] = json.loads) -> list[Row]:
    """The rows that are there; none where there is no file."""
    return [row_of(line) for line in path.read_text().splitlines()] if path.exists() else []


def logged(path: Path, rows: Iterable[Any]) -> Iterator[Any]:
    """The same rows, each written as it comes: dicts, or dataclasses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "rows.jsonl"
    ...     both = read(path), list(logged(path, [{"a": 1}])), read(path)
    {'a': 1}
    >>> both
    ([], [{'a': 1}], [{'a': 1}])
    """
    with path.open("a") as file:
        for row in rows:
            print(json.dumps(row, default=vars), file=file, flush=True)
            print(row, flush=True)
            yield row
