"""Blocks that repeat, as they are drawn: the first of a run, and one box for all others.

Blocks repeat where layers in a row have the same names but for one number (``layers.0.mlp``, ``layers.1.mlp``), the
same widths, and the same operators behind them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fxprune.report.drawing import FOLD, LAYER, Box, Drawing

# Blocks alike in a row from which on they are folded.
LEAST = 3


@dataclass(frozen=True)
class _Block:
    """Boxes ``start`` to ``stop`` of a drawing: what a number of a name stands for."""

    number: int
    start: int
    stop: int
    form: tuple[tuple[str, str, int], ...]


def folded(drawn: Drawing) -> Drawing:
    """The drawing with one box in the place of all blocks but the first of each run; the same where none repeats."""
    hidden = _hidden(drawn.boxes)
    if not hidden:
        return drawn
    boxes: list[Box] = []
    places: list[int] = []
    ends = {start: (stop, words) for start, stop, words in hidden}
    inside = 0
    for place, box in enumerate(drawn.boxes):
        if place in ends:
            inside, words = ends[place]
            boxes.append(_fold(drawn.boxes[place:inside], words))
        elif place >= inside:
            boxes.append(box)
        places.append(len(boxes) - 1)
    edges = dict.fromkeys((places[u], places[v]) for u, v in drawn.edges)
    return Drawing(tuple(boxes), tuple((u, v) for u, v in edges if u != v))


def _fold(boxes: tuple[Box, ...], words: str) -> Box:
    makes, reads = (tuple(dict.fromkeys(group for box in boxes for group in groups(box)))
                    for groups in (lambda box: box.makes, lambda box: box.reads))
    return Box(FOLD, words, makes, reads, holds=tuple(box.name for box in boxes if box.kind == LAYER))


def _hidden(boxes: tuple[Box, ...]) -> list[tuple[int, int, str]]:
    """Disjoint intervals of boxes, the largest first chosen, with what their box says."""
    found = sorted((run for prefix in _prefixes(boxes) for run in _runs(boxes, prefix)),
                   key=lambda run: run[0] - run[1])
    chosen: list[tuple[int, int, str]] = []
    for start, stop, words in found:
        if all(stop <= other[0] or start >= other[1] for other in chosen):
            chosen.append((start, stop, words))
    return chosen


def _prefixes(boxes: tuple[Box, ...]) -> dict[str, None]:
    return dict.fromkeys(box.name[:match.start()] for box in boxes if box.kind == LAYER
                         for match in re.finditer(r"\d+", box.name))


def _runs(boxes: tuple[Box, ...], prefix: str) -> Iterator[tuple[int, int, str]]:
    run: list[_Block] = []
    for block in (*_blocks(boxes, prefix), None):
        if block and run and (block.form, block.start) == (run[-1].form, run[-1].stop):
            run.append(block)
            continue
        if len(run) >= LEAST:
            yield run[1].start, run[-1].stop, f"{len(run) - 1} more like {prefix}{run[0].number}"
        run = [block] if block else []


def _blocks(boxes: tuple[Box, ...], prefix: str) -> Iterator[_Block]:
    """Boxes in a row whose names have one number behind the prefix, and the operators behind them."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)(.*)")
    start, number, form = 0, -1, []  # type: int, int, list[tuple[str, str, int]]
    for place, box in enumerate(boxes):
        match = pattern.fullmatch(box.name) if box.kind == LAYER else None
        if box.kind == LAYER and (match is None or int(match[1]) != number) or box.kind not in (LAYER, "operator"):
            if form:
                yield _Block(number, start, place, tuple(form))
            start, number, form = place, int(match[1]) if match else -1, []
        if number >= 0:
            form.append((box.kind, match[2] if match else box.name, box.before))
    if form:
        yield _Block(number, start, len(boxes), tuple(form))
