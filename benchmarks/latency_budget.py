"""A budget in milliseconds: asked, predicted and measured, and the kept score beside plans by MACs at the same time.

    python -m benchmarks.latency_budget --models resnet18 --asked 0.75 0.5 --out runs/latency_budget
    python -m benchmarks.latency_budget --models resnet18 resnet50 mobilenet_v2 efficientnet_b0 convnext_tiny vit_b_16 \
        --backends eager compile onnxruntime --batches 1 8 --asked 0.75 0.5 0.33 --clock wall --out runs/latency_budget

One thread. Weights are random (seed 0), so that the kept score is that of norms. A row that is refused says why. The
plans by MACs are searched for the fraction whose *measured* time is that of our result, by bisection on the table.
``--out`` receives ``rows.jsonl``, a line per row as soon as it is measured, and ``table.md``.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from tabulate import tabulate
from torch import nn

import fxprune


@dataclass(frozen=True)
class Row:
    """One budget; times in milliseconds."""

    model: str
    backend: str
    batch: int
    asked: float
    predicted: float = 0.0
    measured: float = 0.0
    forecast: float = 0.0
    original_ms: float = 0.0
    search_seconds: float = 0.0
    score: float = 0.0
    macs_score: float = 0.0
    macs_8_score: float = 0.0
    refused: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=["resnet18"])
    add("--backends", nargs="+", default=["eager"])
    add("--batches", nargs="+", type=int, default=[1])
    add("--asked", nargs="+", type=float, default=[0.75, 0.5, 0.33])
    add("--clock", choices=("wall", "thread"), default="thread")
    add("--minutes", type=float, default=3.0)
    add("--size", type=int, default=224)
    add("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.models:
        for backend in args.backends:
            for batch in args.batches:
                for row in measured(name, backend, batch, args):
                    rows.append(row)
                    with (args.out / "rows.jsonl").open("a") as log:
                        log.write(json.dumps(asdict(row)) + "\n")
    head = ("model", "backend", "batch", "asked", "predicted", "measured", "first prediction / measured", "original ms",
            "search s", "kept score", "by MACs", "by MACs, steps of 8", "refused")
    (args.out / "table.md").write_text(tabulate([list(asdict(row).values()) for row in rows], head, tablefmt="github",
                                                floatfmt=".3f") + "\n")


def measured(name: str, backend: str, batch: int, args: argparse.Namespace) -> list[Row]:
    """The rows of one network on one target."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, args.size, args.size)
    layout = "channels_last" if backend == "eager" else "contiguous"
    target = fxprune.Target("cpu", threads=1, memory_format=layout, batch=batch, backend=backend, clock=args.clock)
    coupling = fxprune.analyze(model, x)
    table = fxprune.latency_table(coupling, model, target, minutes=args.minutes,
                                  path=args.out / f"{name}-{backend}-{batch}.json")
    rows = []
    for asked in args.asked:
        start = time.perf_counter()
        try:
            small = fxprune.compress(model, x, latency=asked, table=table, verify=False)
        except fxprune.FxpruneError as error:
            rows.append(Row(name, backend, batch, asked, refused=str(error)))
            continue
        seconds = time.perf_counter() - start
        timing, plan = fxprune.record(small).latency, fxprune.record(small).plan
        share = timing.measured / timing.original
        others = [kept_score(at_time(coupling, model, table, share, step)) for step in (1, 8)]
        rows.append(Row(name, backend, batch, asked, timing.predicted / timing.original, share, timing.forecast,
                        1000 * timing.original, seconds, kept_score(plan), *others))
    return rows


def at_time(coupling: fxprune.Coupling, model: nn.Module, table: fxprune.LatencyTable, share: float, step: int
            ) -> fxprune.Plan:
    """The plan by MACs that takes that share of the time, by the table."""
    prices = table.priced(coupling, model)
    low, high = 0.02, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        plan = fxprune.plan(coupling, model, macs=middle, round_to=step)
        widths = np.array([plan.widths.get(name, group.size) for name, group in coupling.groups.items()])
        low, high = (middle, high) if prices(widths) <= share * table.seconds else (low, middle)
    return fxprune.plan(coupling, model, macs=low, round_to=step)


def kept_score(plan: fxprune.Plan) -> float:
    """The share of all scores, in units of their group's mean, that is kept."""
    scores = {name: np.array(group.scores) / np.mean(group.scores) for name, group in plan.groups.items()}
    kept = sum(scores[name][list(group.kept)].sum() for name, group in plan.groups.items())
    return float(kept / sum(score.sum() for score in scores.values()))


if __name__ == "__main__":
    main()
