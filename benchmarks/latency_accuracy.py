"""Accuracy at equal measured time: plans by the clock beside plans by MACs, after the same recovery, without training.

    PYTHONPATH=examples python -m benchmarks.latency_accuracy --data cifar10.npz --out docs/benchmarks/accuracy_time.md

Networks and data are those of `criteria.py`. All plans are drawn from the same first-order Taylor scores, compared as
they are and priced by what bounds the plan; the rivals' share of the MACs is searched until they take as long as ours,
in turn with the original (`latency_budget.py`). One thread; plans by the clock go in steps of four channels on the
ResNets, elsewhere in those that the processor likes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import fxprune
from benchmarks.criteria import NAMES, RECOVERIES, accuracy
from benchmarks.criteria_nets import NETS, trained
from benchmarks.latency_budget import Drawn, as_long, timed
from benchmarks.row_log import logged, read
from fxprune.errors import MeasurementError
from fxprune.latency.stand import stand_of

ROOT = Path(__file__).resolve().parents[1]
# A third of the layers of these have 16 channels, and no room for the steps that processors like (elsewhere measured).
STEPS = {"resnet20": 4, "resnet56": 4}
WAYS = {"by time": 0, "by MACs": 1, "by MACs, steps of 8": 8}
KEYS = ("net", "target", "asked", "recover")
TARGETS = {"eager, batch 64": {"batch": 64}, "ONNX Runtime, batch 8": {"batch": 8, "backend": "onnxruntime"}}


def main() -> None:
    args = parse()
    rows = read(args.rows)
    known = {tuple(row[key] for key in KEYS) for row in rows}
    rows += logged(args.rows, (row for name, place in itertools.product(args.nets, args.targets)
                               for row in rows_of(name, place, known, args)))
    if args.out:
        args.out.write_text(report(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="CIFAR-10: a torchvision folder, or a .npz")
    add("--nets", nargs="+", default=["resnet20", "resnet56", "mobilenet"], choices=list(NETS))
    add("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    add("--asked", nargs="+", type=float, default=[0.75, 0.5, 0.33])
    add("--samples", type=int, default=1024)
    add("--clock", choices=("wall", "thread"), default="thread")
    add("--minutes", type=float, default=3.0, help="of measuring, a table")
    add("--tables", type=Path, default=Path("runs/latency_tables"))
    add("--rows", type=Path, default=ROOT / "docs" / "benchmarks" / "accuracy_time.jsonl")
    add("--out", type=Path)
    return parser.parse_args()


def rows_of(name: str, place: str, known: set[tuple], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one network on one target that are not known yet."""
    asked = [share for share in args.asked if (name, place, share, "") not in known
             and any((name, place, share, recover) not in known for recover in RECOVERIES)]
    if not asked:
        return
    args.tables.mkdir(parents=True, exist_ok=True)
    net, model = NETS[name], trained(name)
    train, test = net.halves(args.data)
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:args.samples]
    data = {"data": net.ready(train.images[drawn]).split(64), "samples": args.samples}
    x = torch.zeros_like(data["data"][0][:1])
    target = fxprune.Target("cpu", threads=1, clock=args.clock, **TARGETS[place])
    coupling = fxprune.analyze(model, x)
    table = fxprune.latency_table(coupling, model, target, minutes=args.minutes, step=STEPS.get(name),
                                  path=args.tables / f"{name}-{target.backend}-{target.batch}.json")
    scores = fxprune.score(coupling, model, "taylor", **data)
    options = {"criterion": lambda group, tensors: scores[group.name], "scope": "absolute"}
    clock = partial(timed, stand_of(model, coupling, target), coupling)

    def by_macs(step: int, macs: float) -> Drawn:
        small = fxprune.compress(model, x, macs=macs, round_to=step, per="macs", verify=False, **options)
        return small, share_of(small), None

    for share in asked:
        try:
            small = fxprune.compress(model, x, latency=share, table=table, verify=False, **options)
        except fxprune.BudgetError as error:
            yield {**dict(zip(KEYS, (name, place, share, ""), strict=True)), "refused": str(error)}
            continue
        except MeasurementError as error:  # another time it may do
            print(name, place, share, error)
            continue
        timing = fxprune.record(small).latency
        took = timing.measured / timing.original
        found = {"by time": (took, share_of(small), fxprune.record(small).plan)}
        for way, step in list(WAYS.items())[1:]:
            rival = as_long(partial(by_macs, step), clock, took)
            plan = fxprune.plan(coupling, model, macs=rival.asked, round_to=step, per="macs", **options)
            found[way] = rival.time, rival.macs, plan
        for recover in RECOVERIES:
            taken = {} if recover == "none" else {"recover": recover, **data}
            cells = {way: {"time": round(time, 4), "macs": round(macs, 4),
                           "accuracy": accuracy(net, fxprune.apply(model, plan, **taken), test)}
                     for way, (time, macs, plan) in found.items()}
            yield {**dict(zip(KEYS, (name, place, share, recover), strict=True)), **cells}


def share_of(small: nn.Module) -> float:
    """Of the MACs."""
    record = fxprune.record(small)
    return record.after.macs / record.before.macs


def report(rows: list[dict[str, Any]]) -> str:
    """The rows, as Markdown."""
    heads = [[NETS[row["net"]].title.split(",")[0], row["target"], f"{row['asked']:.2f}"] for row in rows]
    lines = [[*head, NAMES[row["recover"]], *(
        f"{row[way]['accuracy']:.2f} ({row[way]['time']:.3f}, {row[way]['macs']:.3f})" for way in WAYS)]
        for head, row in zip(heads, rows, strict=True) if row["recover"]]
    refused = [f"{', '.join(head)}: {row['refused']}" for head, row in zip(heads, rows, strict=True)
               if not row["recover"]]
    rows, said = [row for row in rows if row["recover"]], []
    for way in list(WAYS)[1:]:
        counts = [f"{_counts(rows, way)} in all", *(f"{_counts(found, way)} {NAMES[recover]}" for recover in RECOVERIES
                  if (found := [row for row in rows if row["recover"] == recover]))]
        said.append(f"By time ahead of, level with, behind *{way}*: {'; '.join(counts)}.")
    return "\n\n".join([HEAD, *said, tabulate(lines, ("network", "target", "asked", "recovery", *WAYS),
                                              tablefmt="github", disable_numparse=True), *refused]) + "\n"


def _counts(rows: list[dict[str, Any]], way: str) -> str:
    """Ahead, level, behind."""
    gaps = [row["by time"]["accuracy"] - row[way]["accuracy"] for row in rows]
    return ", ".join(str(sum(found)) for found in zip(*((gap > 0, gap == 0, gap < 0) for gap in gaps), strict=True))


HEAD = """# Accuracy at equal time

Accuracy on the test images in percent, and in brackets the shares of the original's time and of its MACs, without
training: plans by the clock (in steps of four channels on the ResNets, elsewhere in those that were measured to be
worth it) and plans by MACs that take as long, in turn with the original. 1,024 unlabelled images for scores
(first-order Taylor on the outputs) and recovery; one draw. Another process kept the other core busy. What is not
here was not measured. The rows are in `accuracy_time.jsonl`. Written by

    PYTHONPATH=examples python -m benchmarks.latency_accuracy --data cifar10.npz --minutes 0.7 \\
        --out docs/benchmarks/accuracy_time.md"""


if __name__ == "__main__":
    main()
