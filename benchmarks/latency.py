"""Measured speed-up beside the MACs ratio: five networks, two budgets, two batch sizes, four ways to run them.

    python benchmarks/latency.py --threads 2 --out runs/latency                    # everything: hours on two cores
    python benchmarks/latency.py --models resnet18 --batches 1 --threads 1 --out runs/quick

Per network and batch size *all* variants take turns, and each round begins with another one, so a machine that slows
down slows down all of them. A speed-up is the median of the rounds' ratios to the original, run in the same way
(contiguous or channels-last, compiled or not); its quartiles stand beside it. Widths depend on the weights' norms only
a little, and the weights are random ones (seed 0): the scope is ``uniform``, so that every group is cut alike.

``--out`` receives ``rows.jsonl``, a line per row as soon as it is measured (an interrupted run goes on where it
stopped), and ``table.md``. The command and the machine's own words stand on top of the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

import fxprune

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "vgg16")
WAYS = ("plain", "channels_last", "compiled")
# Above that, others use the processor, and a table made now would say so in its first line.
BUSY = 0.5


@dataclass(frozen=True)
class Row:
    """One variant; times in milliseconds, ratios over the original run in the same way."""

    model: str
    batch: int
    way: str
    keep: float
    round_to: int
    macs_ratio: float
    measured_ratio: float
    low: float
    high: float
    original_ms: float
    small_ms: float
    repeats: int


@dataclass(frozen=True)
class Variant:
    """What takes turns: ``keep`` 1 is the original."""

    way: str
    keep: float
    round_to: int
    macs: int
    run: Callable[[Tensor], object]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    args = parse(arguments)
    if args.compact:
        rows = [Row(**json.loads(line)) for path in args.compact for line in path.read_text().splitlines()]
        print(compact(rows))
        return rows
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    if load > BUSY:
        print(f"load average per core is {load:.1f}: others use this machine, and times vary with what they do",
              file=sys.stderr)
    log = args.out / "rows.jsonl"
    rows = [Row(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    todo = [(model, batch) for model in args.models for batch in args.batches
            if not any((row.model, row.batch) == (model, batch) for row in rows)]
    for model, batch in tqdm(todo, desc="latency", disable=None):
        found = list(measured(model, batch, args))
        with log.open("a") as file:
            file.write("".join(json.dumps(asdict(row)) + "\n" for row in found))
        rows += found
    text = report(rows, args, load)
    (args.out / "table.md").write_text(text)
    print(text)
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=MODELS)
    add("--batches", nargs="+", type=int, default=(1, 32))
    add("--keep", nargs="+", type=float, default=(0.5, 0.25), help="fractions of the MACs")
    add("--round-to", nargs="+", type=int, default=(1, 8, 16))
    add("--ways", nargs="+", choices=WAYS, default=WAYS)
    add("--repeats", type=int, default=30)
    add("--warmup", type=int, default=5)
    add("--threads", type=int)
    add("--size", type=int, default=224)
    add("--device", default="cpu")
    add("--out", type=Path, help="the run's folder")
    add("--compact", type=Path, nargs="+", metavar="ROWS", help="measure nothing: one table of these rows.jsonl")
    args = parser.parse_args(arguments)
    if args.out is None and not args.compact:
        parser.error("name a folder: --out runs/latency")
    return args


def measured(name: str, batch: int, args: argparse.Namespace) -> Iterator[Row]:
    """The rows of one network at one batch size."""
    x = torch.randn(batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(0)).to(args.device)
    variants = list(prepared(name, args))
    times = turns(variants, x, args.repeats, args.warmup)
    for way in args.ways:
        base = next(k for k, v in enumerate(variants) if v.way == way and v.keep == 1)
        for k, v in enumerate(variants):
            if v.way != way or k == base:
                continue
            ratios = times[base] / times[k]
            low, high = np.quantile(ratios, [0.25, 0.75])
            yield Row(name, batch, way, v.keep, v.round_to, variants[base].macs / v.macs, float(np.median(ratios)),
                      float(low), float(high), 1000 * float(np.median(times[base])), 1000 * float(np.median(times[k])),
                      args.repeats)


def prepared(name: str, args: argparse.Namespace) -> Iterator[Variant]:
    """The original and every compressed version of it, each in every way."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.zeros(1, 3, args.size, args.size)
    coupling = fxprune.analyze(model, example)
    yield from run_in(model, 1.0, 1, coupling.costs.macs(coupling.widths), args)
    for keep in args.keep:
        for round_to in args.round_to:
            plan = fxprune.plan(coupling, model, macs=keep, scope="uniform", round_to=round_to)
            small = fxprune.apply(model, plan)
            yield from run_in(small.eval(), keep, round_to, fxprune.record(small).after.macs, args)


def run_in(model: nn.Module, keep: float, round_to: int, macs: int, args: argparse.Namespace) -> Iterator[Variant]:
    for way in args.ways:
        copied = copy.deepcopy(model).to(args.device)
        if way == "channels_last":
            copied = copied.to(memory_format=torch.channels_last)
        run = torch.compile(copied) if way == "compiled" else copied
        yield Variant(way, keep, round_to, macs, run)


def turns(variants: Sequence[Variant], x: Tensor, repeats: int, warmup: int) -> np.ndarray:
    """Seconds, float64 [variants, repeats]; each round begins one further."""
    found = np.empty((len(variants), repeats))
    images = {way: x.contiguous(memory_format=torch.channels_last) if way == "channels_last" else x for way in WAYS}
    with torch.inference_mode():
        for turn in range(-warmup, repeats):
            for step in range(len(variants)):
                k = (step + turn) % len(variants)
                seconds = timed(variants[k].run, images[variants[k].way])
                if turn >= 0:
                    found[k, turn] = seconds
    return found


def timed(run: Callable[[Tensor], object], x: Tensor) -> float:
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    started = time.perf_counter()
    run(x)
    wait()
    return time.perf_counter() - started


def compact(rows: Sequence[Row]) -> str:
    """A line per network, budget and batch size; a column per way to run it and multiple of its widths."""
    names = list(dict.fromkeys(r.model for r in rows))
    columns = sorted({(WAYS.index(r.way), r.round_to) for r in rows})
    lines = sorted({(names.index(r.model), -r.keep, r.batch) for r in rows})
    found = {(names.index(r.model), -r.keep, r.batch, WAYS.index(r.way), r.round_to): r for r in rows}
    cells = [(names[name], f"{-keep:.0%}", batch, *(_cell(found.get((name, keep, batch, *column)))
                                                   for column in columns)) for name, keep, batch in lines]
    headers = ("model", "MACs", "batch", *(f"{WAYS[way].replace('_', ' ')}, {step}" for way, step in columns))
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def _cell(row: Row | None) -> str:
    return f"{row.measured_ratio:.2f}× ({row.low:.2f}–{row.high:.2f})" if row else ""


def report(rows: Sequence[Row], args: argparse.Namespace, load: float) -> str:
    headers = ("model", "batch", "run", "keep", "round_to", "MACs ratio", "measured", "quartiles", "original ms",
               "small ms")
    cells = [(r.model, r.batch, r.way, f"{r.keep:.0%}", r.round_to, f"{r.macs_ratio:.2f}×", f"{r.measured_ratio:.2f}×",
              f"{r.low:.2f} – {r.high:.2f}", f"{r.original_ms:.1f}", f"{r.small_ms:.1f}") for r in rows]
    place = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine()
    command = " ".join(["python", "benchmarks/latency.py", *sys.argv[1:]])
    return (f"float32, {torch.get_num_threads()} CPU thread(s), torch {torch.__version__.split('+')[0]}, {place}; "
            f"load average per core at the start: {load:.1f}.\n\n"
            f"{tabulate(cells, headers, tablefmt='github', disable_numparse=True)}\n\n    {command}\n")


if __name__ == "__main__":
    main()
