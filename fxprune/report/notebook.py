"""What a notebook shows of fxprune's values: small tables without scripts or styles of their own.

All text is escaped: names come from the user's model, and reasons quote the user's source.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fxprune.coupling.coupling import Coupling
from fxprune.ir.methods import provides
from fxprune.planning import Plan
from fxprune.report.compression import HEADERS, totals
from fxprune.report.numbers import percent, si
from fxprune.report.quoting import html
from fxprune.report.rows import inputs_in_words, rows
from fxprune.results import Record
from fxprune.verification import Verification

# Longer tables scroll; a notebook's own page should not.
SCROLLS = 14
# Of a plan's options, what decides which channels go.
DRAWN = ("budget", "criterion", "vote", "scope", "round_to")


@provides(Coupling, "_repr_html_")
def coupling_html(coupling: Coupling) -> str:
    """One row per group; `fxprune.report.table` has more."""
    widths = coupling.widths
    about = (f"{len(coupling.groups)} coupling groups, {len(coupling.prunable)} prunable; "
             f"{si(coupling.costs.params(widths))} parameters, {si(coupling.costs.macs(widths))} MACs; "
             f"{coupling.mode} mode; inputs: {inputs_in_words(coupling.inputs)}")
    cells = [(row.name, f"{row.channels:,}", len(row.voters), len(row.consumers), ", ".join(row.coupled_by),
              percent(row.params), percent(row.macs), row.reason or "yes") for row in rows(coupling)]
    heads = ("group", "channels", "voters", "consumers", "tied by", "params", "MACs", "prunable")
    return _block("Coupling", about, _table(heads, cells))


@provides(Plan, "_repr_html_")
def plan_html(plan: Plan) -> str:
    """What is kept of each group."""
    options = ", ".join(f"{key} {_option(plan.options[key])}" for key in DRAWN if key in plan.options)
    cells = [(name, f"{group.size:,}", f"{group.width:,}", percent(group.width / group.size if group.size else 1.0))
             for name, group in plan.groups.items()]
    about = f"{len(plan.keep)} tensors cut" + (f"; {options}" if options else "")
    about += f"; without {', '.join(plan.branches)}" if plan.branches else ""
    return _block("Plan", about, _table(("group", "channels", "kept", "share"), cells))


@provides(Record, "_repr_html_")
def record_html(record: Record) -> str:
    """Before and after, in all and by layer."""
    before, after = record.before.widths, record.after.widths
    layers = [(name, f"{width:,}", f"{after[name]:,}", percent(after[name] / width if width else 1.0))
              for name, width in before.items() if name in after]
    checked = str(record.verification or "not verified (verify=False)")
    gone = f"; without {', '.join(record.plan.branches)}" if record.plan.branches else ""
    return _block("Record", f"{record.mode} mode{gone}; {checked}", _table(HEADERS, totals(record)),
                  f"<details><summary>widths of {len(layers)} layers</summary>"
                  f"{_table(('layer', 'before', 'after', 'kept'), layers)}</details>")


@provides(Verification, "_repr_html_")
def verification_html(verification: Verification) -> str:
    """What was compared, and how well it agrees."""
    runs = ", ".join(f"{mode} at batch {batch}" for mode, batch in verification.runs)
    cells = [("largest relative difference", f"{verification.max_error:.1e} at {verification.worst}"),
             ("tolerance", f"{verification.tolerance:.1e}"), ("values compared", f"{verification.nodes:,}"),
             ("runs", f"{runs}, {verification.dtype}"), *(("input", str(row)) for row in verification.dimensions),
             *(("note", note) for note in verification.notes)]
    return _block("Verification", "verified" if verification.ok else "not equal", _table(("", ""), cells))


def _option(value: Any) -> str:
    return ", ".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)


def _block(kind: str, about: str, *parts: str) -> str:
    return f"<div><p><b>{html(kind)}</b>: {html(about)}</p>{''.join(parts)}</div>"


def _table(heads: Sequence[str], cells: Iterable[Sequence[object]]) -> str:
    lines = ["".join(f"<td>{html(cell)}</td>" for cell in row) for row in cells]
    head = "".join(f"<th>{html(name)}</th>" for name in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table>{f'<thead><tr>{head}</tr></thead>' if any(heads) else ''}<tbody>{body}</tbody></table>"
    return f'<div style="max-height: 24em; overflow: auto">{table}</div>' if len(lines) > SCROLLS else table
