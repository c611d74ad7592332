"""What to cut, and how much of the accuracy stays without training: criteria by recovery by budget, on CIFAR-10.

    python benchmarks/criteria.py --data cifar10.npz --out docs/benchmarks/criteria.md

Every cell is one `fxprune.compress` of a checkpoint in `examples/checkpoints`, with unlabelled training images (another
draw for each seed), verified, and the accuracy of its result on the test images. Criteria named ``tp …`` are
Torch-Pruning's, where that package is installed (`peer_criteria.py`). Cells that `--rows` holds already are
not computed again, so that a run can be broken off and taken up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tabulate import tabulate
from torch import nn

import fxprune
from fxprune.models import cifar_resnet
from fxprune.planning.criteria import CRITERIA

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]

from cifar10 import Split, load_cifar10, normalise  # noqa: E402
from peer_criteria import importances, pruned  # noqa: E402

RECOVERIES = ("none", "statistics", "least_squares")
# Compared as they are, and priced in MACs, where all others are compared in units of their group's mean.
PRICED = {"obs per MAC": "obs"}


def main() -> None:
    args = parse()
    train, test = load_cifar10(args.data)
    test = Split(test.images[:args.test], test.labels[:args.test])
    done = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    known = {tuple(row[key] for key in KEYS) for row in done}
    with args.rows.open("a") as file:
        for depth in args.depths:
            model = network(depth)
            base = {"depth": depth, "criterion": "", "recover": "", "macs": 1.0, "seed": 0, "test": len(test)}
            cells = [base] if not args.only_cells else []
            cells += [dict(zip(KEYS, (depth, *cell, len(test)), strict=True))
                      for cell in itertools.product(args.criteria, args.recover, args.macs, args.seeds)
                      if not (cell[0].startswith("tp ") and cell[1] == "least_squares")]
            for cell in cells:
                if tuple(cell[key] for key in KEYS) in known:
                    continue
                row = {**cell, **measured(model, cell, train, test, args)}
                done.append(row)
                print(json.dumps(row), file=file, flush=True)
                print(row, flush=True)
    if args.out:
        args.out.write_text(report(done, args))
        plot(done, args.out.with_suffix(".svg"))


KEYS = ("depth", "criterion", "recover", "macs", "seed", "test")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: a torchvision folder, or a .npz")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56])
    parser.add_argument("--criteria", nargs="+", default=["auto", *PRICED, *sorted(CRITERIA), *importances()])
    parser.add_argument("--recover", nargs="+", default=list(RECOVERIES), choices=RECOVERIES)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.8, 0.7, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--only-cells", action="store_true", help="leave the uncut networks out")
    parser.add_argument("--rows", type=Path, default=ROOT / "docs" / "benchmarks" / "criteria.jsonl")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def network(depth: int) -> nn.Module:
    """The checkpoint."""
    model = cifar_resnet(depth)
    model.load_state_dict(load_file(ROOT / "examples" / "checkpoints" / f"resnet{depth}.safetensors"))
    return model.eval()


def measured(model: nn.Module, cell: dict, train: Split, test: Split, args: argparse.Namespace) -> dict:
    """Accuracy in percent, seconds of the whole call, and the share of MACs that is kept."""
    if not cell["criterion"]:
        return {"accuracy": accuracy(model, test), "seconds": 0.0, "kept": 1.0}
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(cell["seed"]))[:args.samples]
    batches = normalise(train.images[drawn]).contiguous().split(64)
    start = time.perf_counter()
    if cell["criterion"].startswith("tp "):
        small, kept = pruned(model, cell["criterion"], cell["macs"], cell["recover"], batches)
        return {"accuracy": accuracy(small.eval(), test), "seconds": round(time.perf_counter() - start, 1),
                "kept": round(kept, 4)}
    priced = {"scope": "absolute", "per": "macs"} if cell["criterion"] in PRICED else {}
    criterion = PRICED.get(cell["criterion"], cell["criterion"])
    small = fxprune.compress(model, torch.zeros(1, 3, 32, 32), macs=cell["macs"], criterion=criterion, **priced,
                             data=batches, samples=args.samples,
                             recover=None if cell["recover"] == "none" else cell["recover"])
    seconds, record = time.perf_counter() - start, fxprune.record(small)
    return {"accuracy": accuracy(small.eval(), test), "seconds": round(seconds, 1),
            "kept": round(record.after.macs / record.before.macs, 4)}


@torch.inference_mode()
def accuracy(model: nn.Module, test: Split) -> float:
    """In percent, in float32."""
    right = sum(int((model(normalise(images).contiguous()).argmax(1) == labels).sum())
                for images, labels in zip(test.images.split(500), test.labels.split(500), strict=True))
    return round(100 * right / len(test), 2)


def report(rows: list[dict], args: argparse.Namespace) -> str:
    """The rows on the most test images, as Markdown tables."""
    parts = [HEAD]
    for depth, test in sorted({(row["depth"], row["test"]) for row in rows}):
        mine = [row for row in rows if (row["depth"], row["test"]) == (depth, test)]
        base = [f"{row['accuracy']:.2f} % before" for row in mine if not row["criterion"]]
        parts.append(f"## ResNet-{depth}, {test:,} test images{''.join(f', {words}' for words in base)}")
        parts.append(table([row for row in mine if row["criterion"]]))
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict]) -> str:
    """Criteria by budgets and recoveries; the mean over seeds, and how many there were where more than one."""
    columns = sorted({(row["macs"], row["recover"]) for row in rows}, key=lambda c: (-c[0], RECOVERIES.index(c[1])))
    lines = []
    for criterion in sorted({row["criterion"] for row in rows}):
        line = [criterion]
        for macs, recover in columns:
            found = [row["accuracy"] for row in rows
                     if (row["criterion"], row["macs"], row["recover"]) == (criterion, macs, recover)]
            mean = sum(found) / max(len(found), 1)
            line.append("" if not found else f"{mean:.2f}" + (f" ({len(found)} seeds)" if len(found) > 1 else ""))
        lines.append(line)
    return tabulate(lines, ["criterion", *(f"{macs:.0%} {NAMES[recover]}" for macs, recover in columns)],
                    tablefmt="github", disable_numparse=True)


def plot(rows: list[dict], path: Path) -> None:
    """Accuracy over the share of MACs of the first network, a panel a recovery and a line a criterion."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fxprune"
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["criterion"] and row["depth"] == min(r["depth"] for r in rows)]
    figure, panels = plt.subplots(1, len(RECOVERIES), figsize=(11, 4.5), sharey=True)
    for panel, recover in zip(panels, RECOVERIES, strict=True):
        for number, criterion in enumerate(sorted({row["criterion"] for row in rows})):
            points = sorted((row["macs"], row["accuracy"]) for row in rows
                            if (row["criterion"], row["recover"]) == (criterion, recover))
            panel.plot(*zip(*points or [((), ())], strict=True), "o-" if number < 10 else "s--", label=criterion)
        panel.set_title(NAMES[recover])
        panel.set_xlabel("share of the MACs")
    panels[0].set_ylabel("accuracy (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=9, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


NAMES = {"none": "as cut", "statistics": "statistics", "least_squares": "least squares"}
HEAD = """# What to cut, and how to keep the accuracy without training

Accuracy on CIFAR-10's test images, in percent, at a share of the MACs; 1,024 unlabelled training images, no training.
`auto` is `criterion="auto"`: first-order Taylor on the outputs, compared as it is and priced per MAC; `obs per MAC` is
`criterion="obs", scope="absolute", per="macs"`; all others are compared in units of their group's mean
(`scope="global"`). Every result was verified. Rows named `tp …` are
Torch-Pruning's criteria at the same MACs, its batch norms re-estimated over the same images. The rows are in
`criteria.jsonl`; cells that are empty were not measured, and where no number of seeds is given it is one. Written by

    python benchmarks/criteria.py --data cifar10.npz --out docs/benchmarks/criteria.md

![accuracy over the share of MACs](criteria.svg)"""


if __name__ == "__main__":
    main()
