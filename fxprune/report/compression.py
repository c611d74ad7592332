"""What a compression changed: the model before and after, and every layer that became narrower."""

import shutil
import sys
from collections.abc import Callable
from typing import Any

from tabulate import tabulate

from fxprune.errors import InputError, printable, unknown
from fxprune.ir.methods import provides
from fxprune.report.latency import layer_rows, said
from fxprune.report.numbers import ending, percent, si
from fxprune.report.quoting import markdown
from fxprune.report.rows import inputs_in_words
from fxprune.results import Record

# Columns that the three numbers of a layer take.
NUMBERS = 30
# Outputs that are listed by name.
SHRUNK = 4
# Branches, likewise.
NAMED = 12
HEADERS = ("", "before", "after", "kept")


@provides(Record, "report")
def compression_table(record: Any, format: str = "text", layers: bool = False, width: int | None = None) -> str:
    """Before and after: MACs, parameters and channels, with a latency budget the time, and how the result was checked.

    Args:
        record: `fxprune.record` of a compressed module.
        format: ``"text"`` or ``"md"``.
        layers: add a table of the width of every layer, and of its time where there is a latency budget.
        width: columns of the text's table of layers; the terminal's where None.

    Raises:
        InputError: no such format.
    """
    if format not in FORMATS:
        raise InputError(unknown("format", format, FORMATS))
    render, quote = FORMATS[format]
    # Lines below one another are one paragraph in Markdown, and separate in a list.
    start = "- " if format == "md" else ""
    parts = [render(totals(record), HEADERS), "\n".join(f"{start}{quote(line)}" for line in _said(record))]
    if layers:
        room = (width or shutil.get_terminal_size((120, 24)).columns) - NUMBERS if format == "text" else sys.maxsize
        tables = [(_layers(record.before.widths, record.after.widths), ("layer", "before", "after", "kept"))]
        if record.latency:
            tables.append((layer_rows(record.latency), ("ms by layer", "before", "predicted", "measured")))
        parts += [render([(ending(quote(name), room), *rest) for name, *rest in rows], head) for rows, head in tables]
    return "\n\n".join(parts)


def totals(record: Any) -> list[tuple[str, str, str, str]]:
    """MACs, parameters and channels: before, after, and what share is kept."""
    before, after, timing = record.before, record.after, record.latency
    return [
        *([("time", f"{1000 * timing.original:.3g} ms", f"{1000 * timing.measured:.3g} ms",
            percent(timing.measured / timing.original))] if timing else []),
        ("MACs", si(before.macs), si(after.macs), percent(_share(after.macs, before.macs))),
        ("parameters", si(before.params), si(after.params), percent(_share(after.params, before.params))),
        ("channels", *_channels(before.widths, after.widths)),
    ]


def _text(rows: list[tuple], headers: tuple[str, ...]) -> str:
    return tabulate(rows, headers, tablefmt="simple", colalign=("left", "right", "right", "right"),
                    disable_numparse=True)


def _markdown(rows: list[tuple], headers: tuple[str, ...]) -> str:
    return tabulate(rows, headers, tablefmt="github", colalign=("left", "right", "right", "right"),
                    disable_numparse=True)


# How a table is drawn, and how a name is quoted.
FORMATS: dict[str, tuple[Callable[[list[tuple], tuple[str, ...]], str], Callable[[str], str]]] = {
    "text": (_text, printable), "md": (_markdown, markdown)}


def _channels(before: Any, after: Any) -> tuple[str, str, str]:
    old, new = sum(before.values()), sum(after.values())
    return f"{old:,}", f"{new:,}", percent(_share(new, old))


def _layers(before: Any, after: Any) -> list[tuple[str, str, str, str]]:
    return [(name, f"{width:,}", f"{after[name]:,}", percent(_share(after[name], width)))
            for name, width in before.items() if name in after]


def _share(after: int, before: int) -> float:
    return after / before if before else 1.0


def _said(record: Any) -> list[str]:
    """How the result was checked, on what, and in which mode."""
    narrowed = sum(record.after.widths.get(name, width) < width for name, width in record.before.widths.items())
    checked = record.verification or "not verified (verify=False)"
    return [f"{narrowed} of {len(record.before.widths)} layers are narrower; {record.mode} mode",
            *([_without(record.plan.branches)] if record.plan.branches else []),
            str(checked),
            *([_shrunk(record.outputs)] if record.outputs else []),
            *([_folded(record)] if record.folds else []),
            *([str(record.recovery)] if record.recovery else []),
            *([str(record.overall)] if record.overall else []),
            *(said(record.latency) if record.latency else []),
            f"inputs: {inputs_in_words(record.inputs)}"]


def _without(branches: Any) -> str:
    """The residual branches that went whole, by name."""
    more = f" and {len(branches) - NAMED} more (record.plan.branches)" if len(branches) > NAMED else ""
    return f"{len(branches)} residual branches removed: {', '.join([*branches][:NAMED])}{more}"


def _shrunk(outputs: Any) -> str:
    """The outputs that are smaller than the original's."""
    dims = [f"{name}[{d}] {before} to {after}" for name, shrunk in outputs.items() for d, before, after in shrunk]
    more = f" and {len(dims) - SHRUNK} more (record.outputs)" if len(dims) > SHRUNK else ""
    return f"outputs that shrank: {', '.join(dims[:SHRUNK])}{more}"


def _folded(record: Any) -> str:
    """How far the folded constants are from constant, and the result from a network that emits them."""
    worst = max(record.folds, key=lambda fold: fold.inexact)
    exact = sum(fold.inexact == 0 for fold in record.folds)
    inexact = f"; the least exact is {worst.layer}: {worst.inexact:.1e} of its largest output" if worst.inexact else ""
    return (f"constants of removed channels folded into {len(record.folds)} layers, {exact} of them exactly{inexact}; "
            f"with those channels held at their constants the original is {record.drift:.1e} of its largest output off")
