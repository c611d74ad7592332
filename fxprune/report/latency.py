"""Time by layer: of a table, and of what a latency budget made."""

from typing import Any

from tabulate import tabulate

# Layers in a table's summary.
SHOWN = 10


def table_report(table: Any, prices: Any) -> str:
    """What a latency table says in short: the layers that take longest, and what no width changes.

    Args:
        table: a `fxprune.LatencyTable`.
        prices: its ``priced``, whose terms are layers.
    """
    times = [(term.layer.name, prices.scale * float(term.seconds([full for full in term.layer.full])))
             for term in prices.terms]
    longest = sorted(times, key=lambda entry: -entry[1])
    rows = [(name, _ms(seconds), _share(seconds, table.seconds)) for name, seconds in longest[:SHOWN]]
    rest = longest[SHOWN:]
    rows += [(f"{len(rest)} more layers", _ms(sum(s for _, s in rest)), _share(sum(s for _, s in rest), table.seconds))
             ] * bool(rest)
    rows += [("what no width changes", _ms(prices.base), _share(prices.base, table.seconds)),
             ("the whole model", _ms(table.seconds), "")]
    text = tabulate(rows, ("layer", "ms", "of the model"), tablefmt="simple", colalign=("left", "right", "right"),
                    disable_numparse=True)
    step = f"widths in steps of {table.step}" + ("" if table.stairs else " (not told by measuring)")
    unpriced = "".join(f"\nnot measured by layer: {node}: {why}" for node, why in table.unpriced.items())
    return f"{text}\n\n{table.target}; {table.machine}; {len(table.entries)} entries; {step}{unpriced}"


def layer_rows(timing: Any) -> list[tuple[str, str, str, str]]:
    """Milliseconds by layer: before, predicted and measured after."""
    return [(layer.name, _ms(layer.before), _ms(layer.predicted), "" if layer.measured is None else _ms(layer.measured))
            for layer in timing.layers]


def said(timing: Any) -> list[str]:
    """The time in words: asked, predicted, measured; and the dead steps, which were given back."""
    lines = [f"time: {timing}"]
    if timing.dead:
        named = ", ".join(f"{name} {count}" for name, count in
                          sorted(timing.dead.items(), key=lambda item: -item[1])[:SHOWN])
        more = "" if len(timing.dead) <= SHOWN else f", … ({len(timing.dead)} groups)"
        lines.append(f"dead steps, given back: the removal of {sum(timing.dead.values())} more channels would save "
                     f"nothing here ({named}{more})")
    return lines


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}"


def _share(seconds: float, whole: float) -> str:
    return f"{seconds / whole:.1%}"
