"""Heat maps of filter norms, layers × index, one panel per group: ragged for group lasso, a clean edge for DWGL."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from fxprune.errors import InputError, unknown
from fxprune.report.canvas import figure, write
from fxprune.report.quoting import plot_text
from fxprune.training import Votes

# Inches: of one row, of the picture, and of what stands around a panel.
ROW, WIDTH, MARGIN = 0.28, 5.2, 0.85
FLOOR = 1e-4


def heatmap(votes: Votes | Mapping[str, Votes], path: str | os.PathLike[str], *, groups: Iterable[str] | None = None,
            voters: int = 2) -> None:
    """Write a PNG.

    A row is a voter, a column a channel's index; the colour is the voter's norm of that channel over the voter's
    largest, on a logarithmic scale from 1e-4 to 1. White is below the threshold: given up.

    Args:
        votes: ``dwgl.votes(model)``, or several with their titles, drawn side by side:
            ``{"group lasso": …, "DWGL": …}``.
        path: of the file; the suffix decides the format (``.png``, ``.svg``, ``.pdf``).
        groups: which groups; None takes those with at least ``voters`` voters (all, if there are none).
        voters: see ``groups``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: nothing to draw, or an unknown group.
    """
    columns = {"": votes} if isinstance(votes, Votes) else dict(votes)
    if not columns or not all(isinstance(v, Votes) for v in columns.values()):
        raise InputError("votes must be what dwgl.votes(model) returns, or a dict of such with their titles; write "
                         "heatmap({'before': before, 'after': after}, 'norms.png')")
    names = _names(next(iter(columns.values())), groups, voters)
    heights = [len(next(iter(columns.values()))[name].voters) for name in names]
    size = (WIDTH * len(columns) + 1, ROW * sum(heights) + MARGIN * len(names) + 0.5)
    drawn = figure("heat maps", *size)
    axes = drawn.subplots(len(names), len(columns), squeeze=False,
                          gridspec_kw={"height_ratios": [h + 1 for h in heights]})
    # Imported where a figure exists, and with it matplotlib.
    from matplotlib import colormaps, colors

    palette = colormaps["viridis"].with_extremes(under="white")
    image = None
    for column, (title, each) in enumerate(columns.items()):
        for row, name in enumerate(names):
            ax, ballots = axes[row, column], each[name]
            peak = ballots.norms.max(axis=1, keepdims=True)
            shown = np.where(ballots.given_up, 0, np.maximum(ballots.norms / np.where(peak > 0, peak, 1), FLOOR))
            image = ax.imshow(shown, aspect="auto", interpolation="nearest", cmap=palette,
                              norm=colors.LogNorm(FLOOR, 1))
            ax.set_yticks(range(len(ballots.voters)), [plot_text(v) for v in ballots.voters if column == 0], fontsize=7)
            ax.tick_params(axis="x", labelsize=7)
            lost = f"{ballots.size - len(ballots.kept('intersection'))} of {ballots.size} given up by all"
            ax.set_title(f"{plot_text(title) + ', ' if title else ''}group {plot_text(name)}: {lost}", fontsize=9)
        axes[-1, column].set_xlabel("channel", fontsize=8)
    drawn.colorbar(image, ax=axes, shrink=0.6, label="norm / largest of the layer", extend="min")
    write(drawn, path)


def _names(votes: Votes, groups: Iterable[str] | None, voters: int) -> list[str]:
    if groups is None:
        found = [name for name, b in votes.ballots.items() if len(b.voters) >= voters]
        return found or list(votes.ballots)
    names = [groups] if isinstance(groups, str) else list(groups)
    for name in names:
        if name not in votes.ballots:
            raise InputError(unknown("group", name, votes.ballots))
    if not names:
        raise InputError("groups must name at least one group, got none; leave it out to draw all with several voters")
    return names
