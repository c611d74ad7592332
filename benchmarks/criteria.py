"""What to cut, and how much of the accuracy stays without training: criteria by recovery by budget.

    PYTHONPATH=examples python -m benchmarks.criteria --data cifar10.npz --out docs/benchmarks/criteria.md

Every cell is what `fxprune.compress` does (scores, a plan, the verified result), of a trained network of
`criteria_nets.py`, with unlabelled training images (another draw for each seed), and the accuracy of its result on
the test images. Scores are made once for all cells that share them; the seconds of each count them. Criteria named
``tp …`` are Torch-Pruning's, where that package is installed (`peer_criteria.py`). Cells that `--rows` holds already
are not computed again, so that a run can be broken off and taken up.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from cifar10 import Split
from digits_methods import spread
from tabulate import tabulate
from torch import Tensor, nn

import fxprune
from benchmarks.criteria_nets import NETS, Net, trained
from benchmarks.peer_criteria import cut, importances, reestimate
from benchmarks.row_log import logged, read
from fxprune.planning.criteria import CRITERIA, needs, resolve

ROOT = Path(__file__).resolve().parents[1]
RECOVERIES = ("none", "statistics", "least_squares")
# Compared as they are, and priced in MACs, where all others are compared in units of their group's mean.
PRICED = {"auto": "taylor", "obs per MAC": "obs"}
KEYS = ("net", "criterion", "recover", "macs", "seed", "test")
PEER = "tp "


def main() -> None:
    args = parse()
    done = read(args.rows)
    known = {tuple(row[key] for key in KEYS) for row in done}
    done += logged(args.rows, (row for seed, name in itertools.product(args.seeds, args.nets)
                               for row in rows_of(name, seed, known, args)))
    if args.out:
        args.out.write_text(report(done))
        plot(done, args.out.with_suffix(".svg"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: a torchvision folder, or a .npz")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--criteria", nargs="+", default=[*PRICED, *sorted(CRITERIA), *importances()])
    parser.add_argument("--recover", nargs="+", default=list(RECOVERIES), choices=RECOVERIES)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.8, 0.7, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--rows", type=Path, default=ROOT / "docs" / "benchmarks" / "criteria.jsonl")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def rows_of(name: str, seed: int, known: set[tuple], args: argparse.Namespace) -> Iterator[dict]:
    """The cells of one network and one draw that are not known yet."""
    net, model = NETS[name], trained(name)
    train, test = net.halves(args.data)
    test = Split(test.images[:args.test], test.labels[:args.test])
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:args.samples]
    batches = net.ready(train.images[drawn]).split(64)

    def cell(criterion: str, recover: str, macs: float) -> dict:
        return dict(zip(KEYS, (name, criterion, recover, macs, seed, len(test)), strict=True))

    whole = cell("", "", 1.0)
    if not seed and tuple(whole.values()) not in known:
        yield {**whole, "accuracy": accuracy(net, model, test), "seconds": 0.0, "kept": 1.0}
    for criterion in args.criteria:
        open_cells = [(macs, recover) for macs, recover in itertools.product(args.macs, args.recover)
                      if tuple(cell(criterion, recover, macs).values()) not in known
                      and not (criterion.startswith(PEER) and recover == "least_squares")
                      and (not seed or recover != "none" or reads(criterion))]
        results = theirs if criterion.startswith(PEER) else ours
        for macs, recover, small, seconds, kept in results(model, criterion, open_cells, batches) if open_cells else ():
            yield {**cell(criterion, recover, macs), "accuracy": accuracy(net, small, test),
                   "seconds": round(seconds, 1), "kept": round(kept, 4)}


def reads(criterion: str) -> bool:
    """Whether another draw of the images gives other scores."""
    if criterion.startswith(PEER):
        return criterion == f"{PEER}taylor"
    return bool(needs(resolve(PRICED.get(criterion, criterion))))


Result = tuple[float, str, nn.Module, float, float]


def ours(model: nn.Module, criterion: str, cells: Sequence[tuple[float, str]], batches: Sequence[Tensor]
         ) -> Iterator[Result]:
    """Of each cell its budget and recovery, the network, seconds in all, and the share of MACs that it keeps."""
    data = {"data": batches, "samples": sum(map(len, batches))}
    start = time.perf_counter()
    coupling = fxprune.analyze(model, torch.zeros_like(batches[0][:1]))
    scores = fxprune.score(coupling, model, PRICED.get(criterion, criterion), **data)
    scored = time.perf_counter() - start
    compared = {"scope": "absolute", "per": "macs"} if criterion in PRICED else {}
    for macs, recover in cells:
        start = time.perf_counter()
        plan = fxprune.plan(coupling, model, macs=macs, criterion=lambda group, tensors: scores[group.name], **compared)
        small = fxprune.apply(model, plan, **({} if recover == "none" else {"recover": recover, **data}))
        record = fxprune.record(small)
        yield macs, recover, small, scored + time.perf_counter() - start, record.after.macs / record.before.macs


def theirs(model: nn.Module, criterion: str, cells: Sequence[tuple[float, str]], batches: Sequence[Tensor]
           ) -> Iterator[Result]:
    """As `ours`, by Torch-Pruning."""
    for macs, found in itertools.groupby(cells, key=lambda cell: cell[0]):
        start = time.perf_counter()
        small, kept = cut(model, criterion, macs, batches)
        for _, recover in found:
            if recover == "statistics":
                reestimate(small, batches)
            yield macs, recover, small, time.perf_counter() - start, kept


@torch.inference_mode()
def accuracy(net: Net, model: nn.Module, test: Split) -> float:
    """In percent, in float32."""
    model = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    right = sum(int((model(net.ready(images)).argmax(1) == labels).sum())
                for images, labels in zip(test.images.split(100), test.labels.split(100), strict=True))
    return round(100 * right / len(test), 2)


def report(rows: list[dict]) -> str:
    """The rows, as Markdown tables."""
    parts = [HEAD]
    for name, net in NETS.items():
        mine = [row for row in rows if row["net"] == name]
        for before in (row for row in mine if not row["criterion"]):
            parts.append(f"## {net.title}: {before['accuracy']:.2f} % of {before['test']:,} test images before")
            parts.append(table([row for row in mine if row["criterion"] and row["test"] == before["test"]]))
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict]) -> str:
    """Criteria by budgets and recoveries, and what the slowest recovery of each took."""
    columns = sorted({(row["macs"], row["recover"]) for row in rows}, key=lambda c: (-c[0], RECOVERIES.index(c[1])))
    lines = []
    for criterion in sorted({row["criterion"] for row in rows}):
        mine = [row for row in rows if row["criterion"] == criterion]
        found = [[row["accuracy"] for row in mine if (row["macs"], row["recover"]) == column] for column in columns]
        seconds = [[row["seconds"] for row in mine if row["recover"] == recover] for recover in RECOVERIES]
        lines.append([criterion, *(spread(values) if values else "" for values in found),
                      *(f"{statistics.median(values):.0f}" if values else "" for values in seconds)])
    headers = [f"{macs:.0%} {NAMES[recover]}" for macs, recover in columns]
    return tabulate(lines, ["criterion", *headers, *(f"s, {NAMES[recover]}" for recover in RECOVERIES)],
                    tablefmt="github", disable_numparse=True)


def plot(rows: list[dict], path: Path) -> None:
    """Accuracy over the share of MACs: a row a network, a panel a recovery, and a line a criterion."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fxprune"
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["criterion"]]
    nets = [name for name in NETS if any(row["net"] == name for row in rows)]
    criteria = sorted({row["criterion"] for row in rows})
    figure, panels = plt.subplots(len(nets), len(RECOVERIES), figsize=(11, 3 * len(nets) + 1.2), sharex=True,
                                  sharey="row", squeeze=False)
    for line, (name, recover) in zip(panels.flat, itertools.product(nets, RECOVERIES), strict=True):
        for number, criterion in enumerate(criteria):
            cells = [row for row in rows if [row[key] for key in KEYS[:3]] == [name, criterion, recover]]
            points = [(macs, statistics.mean(row["accuracy"] for row in cells if row["macs"] == macs))
                      for macs in sorted({row["macs"] for row in cells})]
            shares, means = zip(*points, strict=True) if points else ((), ())
            line.plot(shares, means, ("o-", "s--", "^:")[number // 10], label=criterion)
        line.set_title(f"{NETS[name].title.split(',')[0].replace('`', '')}, {NAMES[recover]}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("share of the MACs")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy (%)")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower center", ncols=9, fontsize=8)
    figure.tight_layout(rect=(0, 0.9 / (3 * len(nets) + 1.2), 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


NAMES = {"none": "as cut", "statistics": "statistics", "least_squares": "least squares"}
HEAD = """# What to cut, and how to keep the accuracy without training

Accuracy on the test images, in percent, at a share of the MACs; 1,024 unlabelled training images, no training. `auto`
is `criterion="auto"`: first-order Taylor on the outputs, compared as it is and priced per MAC; `obs per MAC` is
`criterion="obs", scope="absolute", per="macs"`; all others are compared in units of their group's mean
(`scope="global"`). Every result was verified. Rows named `tp …` are Torch-Pruning's criteria at the same MACs, its
batch norms re-estimated over the same images; least squares is no part of that package. A number with ± is the mean of
three draws of the images, and how far the farthest lies from it; what reads none has one without. The last columns are
seconds in one thread beside other work, the median of the row's cells, proof included. The rows are in
`criteria.jsonl`; `criteria_nets.py` trains what is not trained elsewhere. Written by

    PYTHONPATH=examples python -m benchmarks.criteria --data cifar10.npz --out docs/benchmarks/criteria.md

![accuracy over the share of MACs](criteria.svg)"""


if __name__ == "__main__":
    main()
