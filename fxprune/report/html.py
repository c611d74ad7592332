"""The coupling as one page: the network drawn, its layers coloured by group, and what ties each group.

The page holds everything that it needs. It asks the network for nothing, and says so in its content security policy.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fxprune.coupling.coupling import Coupling
from fxprune.coupling.source_lines import at, short
from fxprune.errors import InputError, printable, unknown
from fxprune.ir.files import write_text
from fxprune.ir.groups import PRODUCER, CouplingGroup
from fxprune.ir.methods import provides
from fxprune.planning import Plan
from fxprune.planning.timing import Timing
from fxprune.report.drawing import FOLD, INPUT, LAYER, OUTPUT, Box, Drawing, drawing
from fxprune.report.group_list import families, portions
from fxprune.report.latency import layer_rows, said
from fxprune.report.layout import curve, places
from fxprune.report.numbers import ending, percent, si
from fxprune.report.quoting import printable_data
from fxprune.report.repeated_blocks import folded
from fxprune.report.rows import Row, inputs_in_words, rows

TEMPLATES = Path(__file__).parent / "templates"
# Pixels: boxes by kind (width, height), and the grid that they stand on.
SIZES = {LAYER: (236, 26), FOLD: (236, 26), INPUT: (110, 24), OUTPUT: (110, 24)}
SMALL = (132, 22)
GRID = (290, 42)
MARGIN = 40
# Arcs pass the layers' boxes at this distance from their middle.
CLEAR = 128
# Characters that fit into a layer's box: its name and its width.
LETTERS = 29
# Successive hues that stay apart however many there are.
GOLDEN_ANGLE = 137.508


def _shown(value: Any) -> Any:
    """Of names; what is marked as safe is the page's own."""
    return printable(value) if type(value) is str else value


@provides(Coupling, "to_html")
def to_html(coupling: Coupling, path: str | os.PathLike[str], plan: Plan | None = None, title: str = "",
            timing: Timing | None = None) -> None:
    """Write the page.

    Args:
        coupling: the analysis of a model.
        path: the file, replaced if it exists.
        plan: shows each group's width before and after.
        title: the page's heading; the model's name if left out.
        timing: shows the time by layer, and the steps that would save none.

    Raises:
        InputError: the plan is of another coupling, or the file cannot be written.
    """
    write_text(path, render(coupling, plan, title, timing), "the page", InputError, parents=True)


def render(coupling: Coupling, plan: Plan | None = None, title: str = "", timing: Timing | None = None) -> str:
    """The page as text."""
    # What only this page needs is imported with it.
    import jinja2

    kept = _kept(coupling, plan)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, finalize=_shown)
    drawn = drawing(coupling, kept)
    short = folded(drawn)
    views = [_placed(each) for each in ((drawn,) if short is drawn else (short, drawn))]
    found = rows(coupling)
    groups = printable_data(_groups(coupling, found, kept))
    return environment.get_template("groups.html").render(
        title=title or f"{coupling.model}: coupling groups", summary=_summary(coupling, groups, bool(kept), plan),
        notes=_notes(coupling), views=views, groups=groups, families=families(found), planned=bool(kept), grid=GRID[1],
        times=layer_rows(timing) if timing else [], said=said(timing) if timing else [],
        margin=MARGIN, style=(TEMPLATES / "groups.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "groups.js").read_text(encoding="utf-8"))


def _kept(coupling: Coupling, plan: Plan | None) -> dict[str, tuple[int, ...]]:
    if plan is None:
        return {}
    for name in plan.groups:
        if name not in coupling.groups:
            raise InputError(f"the plan must be of this coupling: {unknown('group', name, coupling.groups)}")
    return {name: group.kept for name, group in plan.groups.items()}


def _placed(drawn: Drawing) -> dict[str, Any]:
    """Boxes and edges with their coordinates, and the size of the whole."""
    grid = places(range(len(drawn.boxes)), drawn.edges)
    left = min(column for column, _ in grid.values())
    boxes: list[dict[str, Any]] = []
    for place, box in enumerate(drawn.boxes):
        width, height = SIZES.get(box.kind, SMALL)
        column, rank = grid[place]
        boxes.append({"x": MARGIN + (column - left + 0.5) * GRID[0], "y": MARGIN + rank * GRID[1], "w": width,
                      "h": height, "column": column, "rank": rank, "label": _label(box), "width": _width(box),
                      "about": _about(box), "box": box})
    edges: list[dict[str, Any]] = [
        {"path": curve(boxes[u], boxes[v], CLEAR), "start": u, "first": boxes[u]["rank"], "last": boxes[v]["rank"]}
        for u, v in drawn.edges]
    rank = max(r for _, r in grid.values())
    return {"boxes": boxes, "edges": edges, "ranks": rank + 1, "h": 2 * MARGIN + GRID[1] * rank,
            "w": 2 * MARGIN + GRID[0] * (1 + max(c for c, _ in grid.values()) - left)}


def _label(box: Box) -> str:
    letters = LETTERS - len(_width(box)) - 1
    if box.kind == FOLD and len(box.name) > letters:
        return box.name[:box.name.index(" like ")]
    return ending(box.name, letters) if box.kind == LAYER else box.name


def _width(box: Box) -> str:
    if not box.before:
        return ""
    return f"{box.before}" if box.after == box.before else f"{box.before} → {box.after}"


def _about(box: Box) -> str:
    place = at(box.node, box.source)
    return f"{box.name} ({place})" if place else box.name


def _groups(coupling: Coupling, found: list[Row], kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the page knows of every group, in the coupling's order."""
    ties, shares = _ties(coupling), portions(coupling)
    hues = {name: round(place * GOLDEN_ANGLE % 360) for place, name in enumerate(coupling.prunable)}
    return [{
        "name": row.name,
        "before": row.channels,
        "after": len(kept.get(row.name, range(row.channels))),
        "of": shares.get(row.name, ""),
        "hue": hues.get(row.name),
        "frozen": _reason(row),
        "params": percent(row.params),
        "macs": percent(row.macs),
        "members": _members(group),
        "ties": ties[row.name],
    } for row, group in zip(found, coupling.groups.values(), strict=True)]


def _reason(row: Row) -> str:
    place = at(row.node, row.source)
    return f"{row.reason} ({place})" if place else row.reason


def _members(group: CouplingGroup) -> dict[str, list[str]]:
    """Where the channels lie, by role."""
    found: dict[str, list[str]] = {}
    for m in group.members:
        often = "" if len(m.index) == group.size else f", {len(m.index)} indices"
        found.setdefault(m.role, []).append(f"{m.name}[{m.dim}]{often}")
    return found


def _ties(coupling: Coupling) -> dict[str, list[str]]:
    """For every group, the operators that tie two or more of its voters, with their places."""
    graph = coupling.graph
    ties: dict[str, list[str]] = {name: [] for name in coupling.groups}
    for node, data in graph.nodes(data=True):
        if data["kind"] != "operator":
            continue
        counts: dict[str, int] = {}
        for slot in graph.neighbors(node):
            if graph.nodes[slot].get("role") == PRODUCER:
                for name in graph.nodes[slot]["groups"]:
                    counts[name] = counts.get(name, 0) + 1
        words = f"{data['op'].partition('::')[2].rstrip('_')}  {at(data['node'], data['source'])}"
        for name in (name for name, number in counts.items() if number > 1):
            ties[name].append(words)
    return ties


def _summary(coupling: Coupling, groups: list[dict[str, Any]], cut: bool, plan: Plan | None) -> list[tuple[str, str]]:
    """The facts in the page's head."""
    gone = tuple(plan.branches) if plan is not None else ()
    costs, left, widths = coupling.costs, coupling.costs_without(gone), coupling.widths
    after = widths.copy()
    after[:] = [group["after"] for group in groups]

    def change(count: Any, then: Any) -> str:
        before = count(widths)
        if not (cut or gone) or not before:
            return si(before)
        return f"{si(before)} → {si(then(after))} ({percent(then(after) / before)})"

    return [("groups", f"{len(groups)}, {len(coupling.prunable)} prunable"),
            *([("branches removed", ", ".join(gone))] if gone else []),
            ("parameters", change(costs.params, left.params)), ("MACs", change(costs.macs, left.macs)),
            ("mode", coupling.mode), ("inputs", inputs_in_words(coupling.inputs))]


def _notes(coupling: Coupling) -> list[str]:
    notes = [f"operator {op} has no rule ({short(source)}): it froze what it met; add one with "
             f"@fxprune.register_rule({op!r})" for op, source in coupling.unknown.items()]
    notes += coupling.bugs
    if coupling.unused:
        notes.append(f"unused in the captured run, left as they are: {', '.join(coupling.unused)}")
    return notes
