"""Train a CIFAR ResNet, compress it, fine-tune it, and say what each step cost.

    python examples/cifar10_resnet.py --data cifar10.npz --depth 20 --macs 0.5 --out runs/resnet20
    python examples/cifar10_resnet.py --data cifar10.npz --out runs/short --short     # ten minutes on two CPU cores
    python examples/cifar10_resnet.py --data cifar10.npz --baseline examples/checkpoints/resnet20.safetensors

Accuracies are those of the last epoch on the 10,000 test images, evaluated in float32. After an interruption, the same
command with --resume goes on where it stopped and ends with the same weights. The folder --out receives

    train/, finetune/    checkpoint.pt and log.jsonl, one line an epoch
    original.safetensors, compressed.safetensors, plan.json
    result.json, table.txt
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from cifar10 import Split
from cifar10_command import begin, common_options
from safetensors.torch import load_model, save_model
from tabulate import tabulate
from torch import nn
from training import Config, device_of, evaluate, fit

import fxprune
from fxprune.models import cifar_resnet

DEPTHS = (20, 32, 56, 110)
SHORT = {"depth": 20, "epochs": 7, "finetune_epochs": 3}


@dataclass(frozen=True)
class Row:
    """One line of the table: a network at one moment."""

    network: str
    accuracy: float
    macs: int
    params: int
    latency_ms: float
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    train, test = begin(args)
    torch.manual_seed(args.seed)
    model = cifar_resnet(args.depth, shortcut=args.shortcut).to(args.device)
    try:
        _original(model, train, test, args)
        rows = [] if args.train_only else compress_and_finetune(model, train, test, args)
    except (FileExistsError, fxprune.FxpruneError) as error:
        raise SystemExit(str(error)) from error
    if rows:
        _write(rows, args)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = common_options(__doc__)
    add = parser.add_argument
    add("--depth", type=int, default=20, choices=DEPTHS)
    add("--shortcut", default="B", choices=("A", "B"), help="where a stage begins: zero padding, or a projection")
    add("--epochs", type=int, default=40)
    add("--weight-decay", type=float, default=5e-4)
    add("--finetune-epochs", type=int, default=20)
    add("--macs", type=float, default=0.5, help="the fraction of multiply-accumulates that is kept")
    add("--criterion", default="l2")
    add("--out", type=Path, default=None, help="default: runs/resnet<depth>")
    add("--short", action="store_true", help=f"{SHORT}: ten minutes on two CPU cores")
    add("--baseline", type=Path, help="start from these weights (.safetensors) instead of training")
    add("--train-only", action="store_true", help="stop after the training")
    args = parser.parse_args(arguments)
    if args.short:
        vars(args).update(SHORT)
    if args.baseline and args.train_only:
        parser.error("--baseline starts from trained weights and --train-only only trains; give one of them")
    if args.baseline and not args.baseline.is_file():
        parser.error(f"--baseline must be a .safetensors file, and there is none at {args.baseline}")
    args.out = args.out or Path("runs") / f"resnet{args.depth}"
    return args


def compress_and_finetune(model: nn.Module, train: Split, test: Split, args: argparse.Namespace) -> list[Row]:
    """The three lines of the table: the original, the compressed one, the same after fine-tuning."""
    name = f"ResNet-{args.depth}"
    example = torch.zeros(1, 3, 32, 32, device=args.device)
    small = fxprune.compress(model, example, macs=args.macs, criterion=args.criterion)
    record = fxprune.record(small)
    args.out.mkdir(parents=True, exist_ok=True)
    record.plan.save(args.out / "plan.json")
    one_shot = evaluate(small, test.images, test.labels)
    before_ms, after_ms = latencies([model, small])
    config = Config(
        epochs=args.finetune_epochs, lr=args.finetune_lr, weight_decay=args.weight_decay, seed=args.seed, warmup=0.5
    )
    fit(small, train, test, config, args.out / "finetune", label="finetune", resume=args.resume)
    save_model(small, str(args.out / "compressed.safetensors"))
    before, after = record.before, record.after
    final = evaluate(small, test.images, test.labels)
    return [
        Row(name, evaluate(model, test.images, test.labels), before.macs, before.params, before_ms, args.seed),
        Row(f"{name}, compressed", one_shot, after.macs, after.params, after_ms, args.seed),
        Row(f"{name}, compressed, fine-tuned", final, after.macs, after.params, after_ms, args.seed),
    ]


def latencies(models: Sequence[nn.Module], batch_size: int = 128, rounds: int = 20) -> list[float]:
    """Median milliseconds of a float32 forward pass of each model, in eval mode.

    The models take turns, so that a machine that slows down slows down all of them.
    """
    device = device_of(models[0])
    x = torch.randn(batch_size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    copies = [copy.deepcopy(model).to(memory_format=torch.channels_last).eval() for model in models]
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for turn in range(rounds + 3):
            for model, found in zip(copies, times, strict=True):
                _wait(device)
                started = time.perf_counter()
                model(x)
                _wait(device)
                # The first turns choose kernels and fill caches.
                if turn >= 3:
                    found.append(1000 * (time.perf_counter() - started))
    return [statistics.median(found) for found in times]


def _original(model: nn.Module, train: Split, test: Split, args: argparse.Namespace) -> None:
    """Give the model its trained weights: from a file, or by training it."""
    if args.baseline:
        load_model(model, args.baseline, device=args.device)
        return
    config = Config(epochs=args.epochs, lr=args.lr, weight_decay=args.weight_decay, seed=args.seed)
    fit(model, train, test, config, args.out / "train", label=f"resnet{args.depth}", resume=args.resume)
    save_model(model, str(args.out / "original.safetensors"))
    print(f"last epoch, float32: {evaluate(model, test.images, test.labels):.2f} % of the test images")


def _write(rows: Sequence[Row], args: argparse.Namespace) -> None:
    headers = ("network", "accuracy %", "MACs M", "params k", f"ms / 128 images ({args.device})", "seed")
    cells = [(r.network, r.accuracy, r.macs / 1e6, r.params / 1e3, r.latency_ms, r.seed) for r in rows]
    table = tabulate(cells, headers, tablefmt="github", floatfmt=("", ".2f", ".2f", ".1f", ".1f", ".0f"))
    (args.out / "table.txt").write_text(table + "\n")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    result = {"settings": settings, "threads": torch.get_num_threads(), "rows": [asdict(row) for row in rows]}
    (args.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
