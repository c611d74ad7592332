"""Plots of what a plan does: widths per layer, scores per group, and what accuracy is left at how many MACs.

Each returns a ``matplotlib.figure.Figure``, and writes it where ``path=`` names a file.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from fxprune.errors import InputError, unknown
from fxprune.planning import Plan
from fxprune.report.canvas import figure, write
from fxprune.report.numbers import percent, si
from fxprune.report.quoting import plot_text
from fxprune.results import Record

# Two colours that differ in lightness as well, for prints and for eyes that see few hues.
KEPT, GONE, GREY = "#2166ac", "#f4a582", "#c8ccd0"
# Inches: of one layer's bar and of one group's histogram.
BAR, PANEL = 0.17, (2.6, 1.9)
# More names than that cannot be read side by side.
NAMES = 90
COLUMNS = 4

Log = str | os.PathLike[str] | Iterable[Mapping[str, Any]]


def widths(record: Record, path: str | os.PathLike[str] | None = None) -> Any:
    """Output channels of every layer before and after, in the order of execution.

    Args:
        record: ``fxprune.record(small)``.
        path: the file to write.

    Raises:
        InputError: no record, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if not isinstance(record, Record):
        raise InputError(f"record must be fxprune.record(small), got {type(record).__name__}")
    before, after = record.before, record.after
    names = list(before.widths)
    old = [before.widths[name] for name in names]
    new = [after.widths.get(name, 0) for name in names]
    drawn = figure("plots", min(max(6.0, BAR * len(names) + 1.5), 60), 4.2)
    ax = drawn.subplots()
    ax.bar(range(len(names)), old, width=0.8, color=GREY, label="before")
    ax.bar(range(len(names)), new, width=0.8, color=KEPT, label="after")
    step = math.ceil(len(names) / NAMES)
    ax.set_xticks(range(0, len(names), step), list(map(plot_text, names[::step])), rotation=90, fontsize=7)
    ax.set_xlim(-0.8, len(names) - 0.2)
    ax.set_ylabel("output channels")
    ax.set_title(f"{si(before.macs)} → {si(after.macs)} MACs, {si(before.params)} → {si(after.params)} parameters",
                 fontsize=10)
    _plain(ax)
    ax.legend(frameon=False, fontsize=8)
    return write(drawn, path)


def scores(plan: Plan, path: str | os.PathLike[str] | None = None, *, groups: str | Iterable[str] | None = None) -> Any:
    """A histogram of each group's scores: what stays, and what goes.

    A group whose two colours overlap was not cut by its score alone (``round_to``, widths set by hand), and a group
    with two clear heaps is cut between them or was cut in the wrong place.

    Args:
        plan: one that was drawn with scores.
        path: the file to write.
        groups: which groups; all that have scores where None.

    Raises:
        InputError: no plan, an unknown group, or no scores.
        MissingExtraError: matplotlib is not installed.
    """
    if not isinstance(plan, Plan):
        raise InputError(f"plan must be a fxprune.Plan, got {type(plan).__name__}")
    names = _scored(plan, groups)
    columns = min(COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    drawn = figure("plots", PANEL[0] * columns, PANEL[1] * lines + 0.6)
    axes = drawn.subplots(lines, columns, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        _histogram(ax, name, plan)
    for ax in axes[len(names):]:
        ax.set_axis_off()
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    words = ", ".join(str(plan.options[key]) for key in ("criterion", "vote") if key in plan.options)
    drawn.supxlabel(f"score ({plot_text(words)})" if words else "score", fontsize=8)
    drawn.supylabel("channels", fontsize=8)
    return write(drawn, path)


def tradeoff(log: Log | Mapping[str, Log], path: str | os.PathLike[str] | None = None, *, macs: str = "macs",
             accuracy: str = "accuracy", by: str | None = None) -> Any:
    """Accuracy against MACs, from records that hold both.

    Args:
        log: a JSON-lines file, or the records themselves; lines without both numbers (events, epochs) are passed by.
            Several with their titles, ``{"l2": "l2.jsonl", "DWGL": "dwgl.jsonl"}``, become one curve each.
        path: the file to write.
        macs, accuracy: the records' keys.
        by: a key whose values tell curves apart.

    Raises:
        InputError: no such file, broken JSON, or nothing to draw.
        MissingExtraError: matplotlib is not installed.
    """
    several = log if isinstance(log, Mapping) else {"": log}
    curves: dict[str, list[tuple[float, float]]] = {}
    for title, each in several.items():
        for record in _records(each):
            x, y = record.get(macs), record.get(accuracy)
            if _number(x) and _number(y):
                label = " ".join(filter(None, [title, str(record.get(by, "")) if by else ""]))
                curves.setdefault(label, []).append((x, y))
    if not curves:
        raise InputError(f"log must hold records with the numbers {macs!r} and {accuracy!r}, got none; name other keys "
                         "with macs= and accuracy=")
    drawn = figure("plots", 6.4, 4.2)
    ax = drawn.subplots()
    for label, points in curves.items():
        x, y = zip(*sorted(points), strict=True)
        ax.plot(x, y, marker="o", markersize=4, linewidth=1.2, label=plot_text(label) or None)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1000 else si(value))
    ax.set_xlabel("MACs" if macs == "macs" else plot_text(macs))
    ax.set_ylabel(plot_text(accuracy))
    ax.grid(alpha=0.3)
    _plain(ax)
    if any(curves):
        ax.legend(frameon=False, fontsize=8)
    return write(drawn, path)


def _scored(plan: Plan, groups: str | Iterable[str] | None) -> list[str]:
    known = [name for name, group in plan.groups.items() if group.scores]
    names = known if groups is None else [groups] if isinstance(groups, str) else list(groups)
    for name in names:
        if name not in plan.groups:
            raise InputError(unknown("group", name, plan.groups))
    names = [name for name in names if name in known]
    if not names:
        raise InputError("plan must hold scores, and these groups have none; write fxprune.plan(coupling, model)")
    return names


def _histogram(ax: Any, name: str, plan: Plan) -> None:
    group = plan.groups[name]
    values = np.asarray(group.scores)
    # Scores that are not finite (a criterion's "never") have no place on an axis.
    finite = np.isfinite(values)
    kept = np.zeros(group.size, bool)
    kept[list(group.kept)] = True
    heaps = [values[finite & ~kept], values[finite & kept]]
    ax.hist(heaps, bins=min(30, max(5, group.size // 4)), stacked=True, color=[GONE, KEPT], label=["removed", "kept"])
    shown = plot_text(name if len(name) <= 28 else f"…{name[-27:]}")
    ax.set_title(f"{shown}\n{group.width} of {group.size} kept ({percent(group.width / group.size)})", fontsize=7)
    ax.tick_params(labelsize=6)
    _plain(ax)


def _records(log: Log) -> Sequence[Mapping[str, Any]]:
    if not isinstance(log, (str, os.PathLike)):
        return list(log)
    try:
        lines = Path(log).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"log must be a readable JSON-lines file, got {os.fspath(log)!r}: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"log must hold one JSON object a line, but {os.fspath(log)!r}, line {number}, does not: "
                             f"{error}") from error
        if isinstance(record, Mapping):
            found.append(record)
    return found


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(ax: Any) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
