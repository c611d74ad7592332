"""What a search found, drawn: its values trial by trial, a front, and curves of sensitivity."""

import os
from typing import Any

from fxprune.errors import InputError
from fxprune.ir.methods import provides
from fxprune.report.canvas import figure, write
from fxprune.report.plots import GONE, GREY, KEPT
from fxprune.report.quoting import plot_text
from fxprune.searching import Found, Sensitivity

SIZE = (6.4, 4.2)
# Curves with a colour and a name of their own: those that lose most.
NAMED = 8


@provides(Found, "plot")
def search_plot(result: Any, path: str | os.PathLike[str] | None = None) -> Any:
    """Values of a search: trial by trial with the best so far, or two against each other with their front.

    Raises:
        InputError: three values or more, no trial yet, or a file that cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if not result.trials:
        raise InputError("nothing to draw: no trial of this study is done")
    if len(result.study.directions) > 2:
        raise InputError(f"a plot has two values, and this search has {len(result.study.directions)}; draw found.front "
                         "as you like")
    drawn = figure("plots", *SIZE)
    ax = drawn.subplots()
    (_one if len(result.study.directions) == 1 else _two)(ax, result)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return write(drawn, path)


def _one(ax: Any, result: Any) -> None:
    better = max if result.study.direction.name == "MAXIMIZE" else min
    numbers = [trial.number for trial in result.trials]
    values = [trial.values[0] for trial in result.trials]
    starts = [trial for trial in result.starts]
    ax.scatter(numbers, values, s=14, color=GREY, label="trials")
    ax.scatter([t.number for t in starts], [t.values[0] for t in starts], s=28, color=GONE, label="starts")
    ax.step(numbers, [better(values[:end]) for end in range(1, len(values) + 1)], where="post", color=KEPT,
            label="best so far")
    ax.set_xlabel("trial")
    ax.set_ylabel("value")


def _two(ax: Any, result: Any) -> None:
    for trials, colour, size, label in ((result.trials, GREY, 14, "trials"), (result.starts, GONE, 28, "starts")):
        ax.scatter([t.values[1] for t in trials], [t.values[0] for t in trials], s=size, color=colour, label=label)
    front = sorted(result.front, key=lambda trial: trial.values[1])
    ax.plot([t.values[1] for t in front], [t.values[0] for t in front], color=KEPT, marker="o", markersize=4,
            label="front")
    ax.set_xlabel("value 2")
    ax.set_ylabel("value 1")


@provides(Sensitivity, "plot")
def sensitivity_plot(result: Any, path: str | os.PathLike[str] | None = None) -> Any:
    """A curve for each unit: the value against the share that is kept; those that lose most are named.

    Raises:
        InputError: the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    drawn = figure("plots", *SIZE)
    ax = drawn.subplots()
    worst = sorted(result.values, key=lambda unit: min(result.values[unit].values()))
    for place, unit in enumerate(reversed(worst)):
        rank = len(worst) - 1 - place
        curve = {1.0: result.whole, **result.values[unit]}
        style = {"color": f"C{rank}", "label": plot_text(unit)} if rank < NAMED else {"color": GREY}
        ax.plot(list(curve), list(curve.values()), marker="o", markersize=3, **style)
    ax.set_xlabel("share of the unit's channels that is kept, all others whole")
    ax.set_ylabel("value")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=7)
    return write(drawn, path)
