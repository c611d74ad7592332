"""Rows as a page: one table a suite, with what holds over all of its models in front."""

import json
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
HEAD = ("model", "mode", "groups", "channels", "frozen", "top reason", "params (M)", "kept", "module form", "MACs (G)",
        "error", "free dimensions", "trained", "capture", "coupling", "rewrite", "verify", "MB")
PASSES = ("capture", "coupling", "rewrite")
PREFACE = """# The zoo

Every model at `channels=0.5`, made again by `python -m tests.zoo`. *Frozen* is the share of channels that may not go,
those at the model's input and output included; the reason is the most frequent of the others. *Error* is the largest
relative difference from the masked original over all nodes, in eval and in train mode, at two batch sizes, at half of
every group and at random unequal widths; times are processor seconds on one thread, *verify* for both plans; memory
is the process's peak. timm's models get their own input size; torchvision's get 64 × 64 pictures unless their layers
fix another size, since structure does not depend on it (MACs are those of that size). *beyond* are small nets of
other kinds, written or configured for this; *packages* are ultralytics' and segmentation-models-pytorch's own
(``pip install`` them first). *transformers* and *diffusers* are architectures of these packages from small
configurations, with the inputs that their forward is called with. *Free dimensions* are those of the inputs that were
proven at two lengths, of all. *Trained* says whether the result was compared in training mode, and ran forward and
backward in it. *Module form* is what `form="module"` keeps at the same request, not verified here, where *kept* is of
the graph.
"""
# How far the module form may keep more of a model than the graph form does, and count as equal.
CLOSE = 0.05


def write(rows: list[Row], path: Path) -> None:
    """The page, and the rows beside it, without what is of the machine that measured."""
    rows = sorted(({key: row[key] for key in row if key != "traceback"} for row in rows),
                  key=lambda row: (row["suite"], row["model"]))
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    suites = dict.fromkeys(row["suite"] for row in rows)
    parts = [PREFACE] + [section(suite, [row for row in rows if row["suite"] == suite]) for suite in suites]
    path.write_text("\n".join(parts))


def section(suite: str, rows: list[Row]) -> str:
    good = [row for row in rows if "failed" not in row]
    lines = [f"## {suite}", "", summary(rows, good), "", "| " + " | ".join(HEAD) + " |",
             "|" + "---|" * 2 + "---:|" * 3 + "---|" + "---:|" * (len(HEAD) - 6)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def summary(rows: list[Row], good: list[Row]) -> str:
    shares = [kept(row) for row in good]
    if not shares:
        return f"{len(rows)} models, none compressed."
    graph = sum(row["mode"] == "graph" for row in good)
    proven = sum("error" in row for row in good)
    trained = sum(_trained(row) == "yes" for row in good if "error" in row)
    more = [row["formed"] / row["params"][0] - kept(row) for row in good if "formed" in row]
    alike = f"; {sum(n <= CLOSE for n in more)} of {len(more)} within {CLOSE} of that in module form" if more else ""
    return (f"{len(rows)} models, {len(good)} compressed ({graph} in graph mode), {proven} verified, {trained} of them "
            f"in both modes; parameters kept: median {median(shares):.1%}, at most {max(shares):.1%}{alike}.")


def kept(row: Row) -> float:
    before, after = row["params"]
    return after / before


def cells(row: Row) -> list[str]:
    if "failed" in row:
        return [row["model"], "failed", *[""] * 3, row["failed"].replace("|", "/").replace("\n", " ")[:160],
                *[""] * (len(HEAD) - 6)]
    reason = row["reasons"][0][0].replace("|", "/") if row["reasons"] else ""
    seconds = [f"{row['seconds'][name]:.2f}" if name in row["seconds"] else "" for name in PASSES]
    verify = f"{row['seconds']['verify']:.1f}" if "error" in row else ""
    return [row["model"], row["mode"], str(row["groups"]), str(row["channels"]), f"{row['frozen']:.0%}", reason,
            scaled(row["params"], 1e6), f"{kept(row):.1%}", _formed(row), scaled(row["macs"], 1e9),
            f"{row['error']:.1e}" if "error" in row else "", _free(row), _trained(row), *seconds, verify,
            str(row["memory"])]


def _formed(row: Row) -> str:
    return f"{row['formed'] / row['params'][0]:.1%}" if "formed" in row else "refused" if "unformed" in row else ""


def _free(row: Row) -> str:
    """Of the inputs' dimensions those that were proven at two lengths."""
    return "{} of {}".format(*row["free"]) if "free" in row else ""


def _trained(row: Row) -> str:
    """Whether the result was compared in training mode, and run forward and backward in it (of older rows the latter is
    known alone, or they would have failed)."""
    compared = "runs" not in row or any(mode == "train" for mode, _ in row["runs"])
    return "yes" if compared and not row.get("untrained") else "no"


def scaled(pair: list[int], unit: float) -> str:
    return f"{pair[0] / unit:.2f} → {pair[1] / unit:.2f}"
