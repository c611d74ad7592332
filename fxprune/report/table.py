"""The coupling groups as a table: for the terminal, for Markdown, and for programs (JSON, CSV)."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from textwrap import fill

from tabulate import tabulate

from fxprune.coupling.coupling import Coupling
from fxprune.coupling.source_lines import at, short
from fxprune.errors import InputError, printable, unknown
from fxprune.ir.methods import provides
from fxprune.report.numbers import ending, percent, si
from fxprune.report.quoting import csv_cell, markdown
from fxprune.report.rows import Row, inputs_in_words, rows

HEADERS = ("group", "channels", "voters", "consumers", "tied by", "params", "MACs", "prunable")
ALIGN = ("left", "right", "left", "left", "left", "right", "right", "left")
# Columns that give way where the terminal is narrow, and how narrow they may become.
ELASTIC, NARROWEST = (2, 3, 4), 9
SHARES = ("params, MACs: what goes if all of a group's channels go and the others stay (a weight counts for the groups "
          "of both its dimensions, so shares overlap)")


@provides(Coupling, "report")
def coupling_table(coupling: Coupling, format: str = "text", width: int | None = None) -> str:
    r"""The coupling groups, one row each, and below them what could not be understood or is not used.

    Args:
        coupling: the analysis of a model.
        format: ``"text"``, ``"md"`` (GitHub Markdown), ``"json"`` or ``"csv"``.
        width: columns of the text table; the terminal's where None.

    Raises:
        InputError: no such format.

    Below the table stand the reasons, operators without a rule, unused parameters and what the shares mean.

    >>> import torch
    >>> from torch import nn
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> print(coupling_table(analyze(net, torch.randn(1, 3, 8, 8)), width=80).split("\n\n")[1])
    group  channels  voters  consumers  tied by  params     MACs  prunable
    -----  --------  ------  ---------  -------  ------  -------  --------
    0             8  1: 0    1: 2                99.2 %  100.0 %  yes
    2             4  1: 2    0                   56.6 %   37.2 %  no (1)
    """
    if format not in FORMATS:
        raise InputError(unknown("format", format, FORMATS))
    return FORMATS[format](coupling, width)


def _text(coupling: Coupling, width: int | None) -> str:
    width = width or shutil.get_terminal_size((120, 24)).columns
    cells, notes = _cells(rows(coupling), printable)
    fitted = [list(HEADERS), *_fitted(cells, width)]
    # The rule is a row of its own: tabulate pads real headers by two columns, which a narrow terminal cannot spare.
    rule = ["-" * max(map(len, column)) for column in zip(*fitted, strict=True)]
    table = tabulate([fitted[0], rule, *fitted[1:]], tablefmt="plain", colalign=ALIGN, disable_numparse=True)
    prose = [fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
             for line in map(printable, (_summary(coupling), *notes, *_below(coupling), SHARES))]
    return "\n".join([prose[0], "", table, "", *prose[1:]])


def _markdown(coupling: Coupling, _: int | None) -> str:
    cells, notes = _cells(rows(coupling), markdown)
    table = tabulate(cells, HEADERS, tablefmt="github", colalign=ALIGN, disable_numparse=True)
    below = [f"- {markdown(line)}" for line in (*notes, *_below(coupling), SHARES)]
    return "\n".join([markdown(_summary(coupling)), "", table, "", *below])


def _json(coupling: Coupling, _: int | None) -> str:
    widths = coupling.widths
    return json.dumps({
        "mode": coupling.mode,
        "inputs": inputs_in_words(coupling.inputs),
        "macs": coupling.costs.macs(widths),
        "params": coupling.costs.params(widths),
        "groups": [{**asdict(row), "prunable": row.prunable} for row in rows(coupling)],
        "operators_without_rule": dict(coupling.unknown),
        "bugs": list(coupling.bugs),
        "branches": list(coupling.branches),
        "unused": list(coupling.unused), "why": coupling.why, "eager": coupling.eager,
    }, indent=2)


def _csv(coupling: Coupling, _: int | None) -> str:
    out = io.StringIO()
    names = [*Row.__dataclass_fields__, "prunable"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows(coupling):
        values = [getattr(row, name) for name in names]
        writer.writerow([csv_cell(" ".join(v) if isinstance(v, tuple) else v) for v in values])
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Coupling, int | None], str]] = {
    "text": _text, "md": _markdown, "json": _json, "csv": _csv,
}


def _cells(found: Sequence[Row], quote: Callable[[str], str]) -> tuple[list[list[str]], list[str]]:
    """The cells, and the reasons as numbered notes: many groups share one, and it is too long for a column."""
    notes: dict[str, int] = {}
    cells = []
    for row in found:
        verdict = "yes"
        if not row.prunable:
            place = at(row.node, row.source)
            reason = f"{row.reason} ({place})" if place else row.reason
            verdict = f"no ({notes.setdefault(reason, len(notes) + 1)})"
        cells.append(list(map(quote, (
            row.name, f"{row.channels:,}", _counted(row.voters), _counted(row.consumers), ", ".join(row.coupled_by),
            percent(row.params), percent(row.macs), verdict))))
    return cells, [f"({number}) not prunable: {reason}" for reason, number in notes.items()]


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "0"


def _fitted(cells: list[list[str]], width: int) -> list[list[str]]:
    """Cut the elastic columns so that the table is as wide as the terminal, the widest of them first."""
    natural = [max(map(len, column)) for column in zip(HEADERS, *cells, strict=True)]
    spare = width - 2 * (len(HEADERS) - 1) - sum(n for k, n in enumerate(natural) if k not in ELASTIC)
    limit = max(natural[k] for k in ELASTIC)
    while limit > NARROWEST and sum(max(min(natural[k], limit), len(HEADERS[k])) for k in ELASTIC) > spare:
        limit -= 1
    # A name of which a few letters are left helps nobody: then the counts alone.
    brief = limit < min(16, natural[ELASTIC[0]])
    fitted = [[_cut(cell, max(limit, len(HEADERS[k])), brief) if k in ELASTIC else cell for k, cell in enumerate(row)]
              for row in cells]
    rest = sum(max(map(len, column)) for column in list(zip(HEADERS, *fitted, strict=True))[1:])
    return [[ending(name, width - rest - 2 * (len(HEADERS) - 1)), *others] for name, *others in fitted]


def _cut(cell: str, limit: int, brief: bool) -> str:
    count, colon, _ = cell.partition(": ")
    if brief and colon:
        return count
    return cell if len(cell) <= limit else f"{cell[:limit - 1]}…"


def _summary(coupling: Coupling) -> str:
    widths = coupling.widths
    return (f"{len(coupling.groups)} coupling groups, {len(coupling.prunable)} prunable; "
            f"{si(coupling.costs.params(widths))} parameters, {si(coupling.costs.macs(widths))} MACs; "
            f"{coupling.mode} mode; inputs: {inputs_in_words(coupling.inputs)}")


def _below(coupling: Coupling) -> list[str]:
    """What a reader of the table should know besides."""
    lines = [f"module mode, since the model's Python cannot be traced: {coupling.why}"] if coupling.why else []
    if coupling.eager:
        lines.append(f"the graph of what the model runs under torch.compile; without, {coupling.eager}")
    lines += coupling.bugs
    for op, source in coupling.unknown.items():
        lines.append(f"no rule: {op}{f' ({short(source)})' if source else ''} froze what it met; add a rule with "
                     f"@fxprune.register_rule({op!r}), see docs/adding-an-operator.md")
    if coupling.branches:
        names = [*coupling.branches]
        more = f", … ({len(names)} in all)" if len(names) > 6 else ""
        lines.append(f"residual branches that may go whole (depth=): {', '.join(names[:6])}{more}")
    if coupling.unused:
        shown = ", ".join(coupling.unused[:6]) + (f", … ({len(coupling.unused)} in all)" if len(coupling.unused) > 6
                                                  else "")
        lines.append(f"unused in the captured run, left as they are: {shown}")
    return lines
