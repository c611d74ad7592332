"""DWGL end to end on scikit-learn's digits, which need no download: under two minutes on a laptop.

    python examples/digits_dwgl.py --out runs/digits

A small residual net with branches is trained; its channels are ordered; it is trained on with plain group lasso and,
from the same weights, with DWGL; the voters' ballots are compared; what DWGL's voters agree on is removed, and the
small net is fine-tuned. The folder receives ``norms.png``, the heat map of filter norms before and after: ragged for
group lasso, a clean edge for DWGL.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

import fxprune
from fxprune.report.heatmap import heatmap
from fxprune.training import DWGL, Ramp, Votes

Data = tuple[Tensor, Tensor]
BATCH = 64


class Block(nn.Module):
    """relu(x + three(x) + one(x)): a bottleneck of 3x3 convolutions and a 1x1 branch."""

    def __init__(self, width: int):
        super().__init__()
        self.three = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                                   nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.one = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.three(x) + self.one(x))


class Net(nn.Module):
    """A stem, three blocks on one stream (seven voters), and a linear layer."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    train, test = digits(args.seed)
    model = Net()
    fit(model, train, args.epochs, "train")

    coupling = fxprune.analyze(model, train[0][:1])
    ordered, permutation = fxprune.order(model, coupling, by="activation", data=train[0].split(256))
    print(permutation)

    ramp = Ramp(until=args.macs, rate=0.5, every=len(train[0]) // BATCH)
    directed = DWGL(coupling, args.strength, direction=(0.0, 8.0), power=2.0, include_scale=True, schedule=ramp)
    votes = {"before": directed.votes(ordered)}
    model = train_on(ordered, directed, "DWGL", train, test, args.epochs, votes)
    # Group lasso at the same mean coefficient (8 · t² over [0, 1] has the mean 8 / 3) and the strength reached above.
    plain = DWGL(coupling, args.strength, direction=(8 / 3, 8 / 3), include_scale=True,
                         schedule=replace(ramp, limit=directed.progress.factor))
    train_on(ordered, plain, "group lasso", train, test, args.epochs, votes)
    picture = args.out / "norms.png"
    heatmap({title: votes[title] for title in ("before", "group lasso", "DWGL")}, picture)

    plan = fxprune.plan(coupling, model, vote="intersection", threshold=1e-3)
    # A dead filter still emits its batch norm's shift; that constant goes into the layers that read it.
    small = fxprune.apply(model, plan, fold_constants=True, calibration=train[0])
    plan.save(args.out / "plan.json")
    cut = accuracy(small, test)
    fit(small, train, args.epochs // 2, "fine-tune", lr=0.02)
    full, left = coupling.costs.macs(coupling.widths), fxprune.record(small).after.macs
    rows = [("original", accuracy(ordered, test), 1.0), ("DWGL, cut", cut, left / full),
            ("DWGL, cut, fine-tuned", accuracy(small, test), left / full)]
    print("\n" + tabulate([(name, f"{a:.2f}", f"{m:.1%}") for name, a, m in rows],
                          ("network", "accuracy %", "MACs"), tablefmt="github", disable_numparse=True))
    print(f"\nheat map of filter norms: {picture}")


def train_on(ordered: nn.Module, dwgl: DWGL, label: str, train: Data, test: Data, epochs: int,
             votes: dict[str, Votes]) -> nn.Module:
    """A copy of the ordered net, trained with the penalty; its votes are printed and kept."""
    model = copy.deepcopy(ordered)
    fit(model, train, epochs, label, penalty=dwgl)
    votes[label] = dwgl.votes(model)
    print(f"\n{label}: accuracy {accuracy(model, test):.2f} %, strength {dwgl.penalty:g}\n{votes[label].report()}")
    return model


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.01)
    parser.add_argument("--macs", type=float, default=0.3, help="the fraction that the votes are to leave")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def digits(seed: int) -> tuple[Data, Data]:
    """1,397 images to learn and 400 to test: float32 [N, 1, 8, 8] and their labels."""
    found = load_digits()
    images = torch.from_numpy(found.images).float().unsqueeze(1).div(8).sub(1)
    labels = torch.from_numpy(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, test = order[400:], order[:400]
    return (images[train], labels[train]), (images[test], labels[test])


def fit(model: nn.Module, data: Data, epochs: int, label: str, lr: float = 0.1,
        penalty: DWGL | None = None) -> None:
    """SGD with a cosine; the penalty as a proximal step after each update."""
    images, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // BATCH))
    model.train()
    for _ in tqdm(range(epochs), desc=label, unit="epoch", disable=None):
        order = torch.randperm(len(images))[:len(images) // BATCH * BATCH]
        for batch in order.split(BATCH):
            shifted = torch.roll(images[batch], torch.randint(-1, 2, (2,)).tolist(), (2, 3))
            F.cross_entropy(model(shifted), labels[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if penalty is not None:
                penalty.proximal_(model, scheduler.get_last_lr()[0])
                penalty.step(model)
            scheduler.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Percent, in eval mode."""
    training = model.training
    found = (model.eval()(data[0]).argmax(1) == data[1]).float().mean().item()
    model.train(training)
    return 100 * found


if __name__ == "__main__":
    main()
