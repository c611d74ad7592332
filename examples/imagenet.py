"""DWGL on ImageNet: the paper's two ResNet-50 rows, on as many GPUs as torchrun is given.

    torchrun --nproc-per-node 8 examples/imagenet.py --data /data/imagenet --preset 53 --out runs/imagenet53
    torchrun --nproc-per-node 8 examples/imagenet.py --preset 75 --out runs/imagenet75 \
        --train-shards 'imagenet-train-{000000..000146}.tar' --test-shards 'imagenet-val-{000000..000006}.tar'

The network starts from --weights (a checkpoint of one's own) or from torchvision's. It is ordered, pressed by
`fxprune.DWGL.towards` until all voters have given up what the preset asks for, cut by their intersection, and trained
on. After an interruption the same command with --resume goes on after the last whole epoch. --out receives press.pt,
finetune.pt, plan.json, small.safetensors and rows.json; what it would cost, and which numbers it has to meet, stands
in docs/imagenet.md.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from imagenet_data import Data, Folder, Shards, endless, rank, world
from imagenet_training import Phase, accuracy, fit
from safetensors.torch import save_model
from torch import nn
from torchvision.models import get_model
from training import Config

import fxprune
from fxprune.models import load_weights
from fxprune.training.ranks import check_ranks


@dataclass(frozen=True)
class Preset:
    """A row of Zhan et al. 2019: the fraction of MACs that is kept, and what the paper reports for it."""

    macs: float
    error_increment: float
    speedup: float


# "53 %, +0.6, 2.23x" and "75 %, +1.2, 4x", with compression read as MACs.
PRESETS = {"53": Preset(0.47, 0.6, 2.23), "75": Preset(0.25, 1.2, 4.0)}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    args = parse(arguments)
    many = "RANK" in os.environ and not dist.is_initialized()
    if many:
        dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
    try:
        return run(args)
    finally:
        if many:
            dist.destroy_process_group()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), default="53", help="percent of the MACs that go")
    add("--data", type=Path, help="a folder with train/<class>/ and val/<class>/")
    add("--train-shards", help="WebDataset shards, in place of --data")
    add("--test-shards", help="likewise")
    add("--train-images", type=int, default=1_281_167, help="an epoch of shards")
    add("--classes", type=int, default=1000, help="of shards")
    add("--model", default="resnet50", help="of torchvision")
    add("--weights", type=Path, help="what to start from; default: torchvision's own trained weights")
    add("--from-scratch", action="store_true", help="start from random weights")
    add("--size", type=int, default=224)
    add("--batch-size", type=int, default=1024, help="of all ranks together")
    add("--workers", type=int, default=8, help="a rank")
    add("--press-epochs", type=int, default=15)
    add("--finetune-epochs", type=int, default=90)
    add("--lr", type=float, default=0.1, help="of fine-tuning, for 256 images; a tenth of it presses")
    add("--amp", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    add("--ema", type=float, default=0.9999, help="of the weights while fine-tuning; 0 for none")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--out", type=Path, required=True)
    add("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args(arguments)
    if (args.data is None) == (args.train_shards is None or args.test_shards is None):
        parser.error("give --data, or --train-shards and --test-shards")
    if args.batch_size % int(os.environ.get("WORLD_SIZE", 1)):
        parser.error(f"--batch-size must be a multiple of the {os.environ['WORLD_SIZE']} processes, got "
                     f"{args.batch_size}")
    return args


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    preset, device = PRESETS[args.preset], _device(args.device)
    data = _data(args)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    model = _model(args, data.classes).to(device)
    before = accuracy(model, data)

    example = torch.zeros(1, 3, args.size, args.size, device=device)
    coupling = fxprune.analyze(model, example)
    model, _ = fxprune.order(model, coupling)
    dwgl = fxprune.DWGL.towards(coupling, macs=preset.macs, steps=args.press_epochs * data.steps)
    scaled = args.lr * args.batch_size / 256
    common = {"weight_decay": 5e-5, "batch_size": args.batch_size, "label_smoothing": 0.1}
    press = Config(args.press_epochs, scaled / 10, warmup=0.0, seed=args.seed, **common)
    model, _ = fit(model, data, Phase("press", press, args.amp), args.out, resume=args.resume, penalty=dwgl)

    plan = fxprune.plan(coupling, model, macs=preset.macs, vote="intersection")
    if world() > 1:
        check_ranks(plan, model)
    if rank() == 0:
        plan.save(args.out / "plan.json")
    # What dead filters still emit goes into the layers that read them, as far as a batch shows it to be constant.
    batch = next(islice(endless(data), 1))[0].to(device)
    small = fxprune.apply(model, plan, fold_constants=True, calibration=batch)
    cut = accuracy(small, data)
    finetune = Config(args.finetune_epochs, scaled, warmup=0.05 * args.finetune_epochs, seed=args.seed + 1, **common)
    small, _ = fit(small, data, Phase("finetune", finetune, args.amp, args.ema), args.out, resume=args.resume)

    rows = [_row("original", before, before, coupling.costs.macs(coupling.widths), preset),
            _row("cut", cut, before, fxprune.record(small).after.macs, preset),
            _row("fine-tuned", accuracy(small, data), before, fxprune.record(small).after.macs, preset)]
    if rank() == 0:
        save_model(small, str(args.out / "small.safetensors"))
        (args.out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
        print(json.dumps(rows, indent=1))
    return rows


def _row(network: str, now: float, before: float, macs: float, preset: Preset) -> dict[str, Any]:
    return {"network": network, "accuracy": now, "error_increment": before - now, "macs": int(macs),
            "paper_increment": preset.error_increment}


def _device(name: str) -> torch.device:
    if name != "cuda":
        return torch.device(name)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def _data(args: argparse.Namespace) -> Data:
    if args.data is not None:
        return Folder(args.data, args.size, args.batch_size, args.workers)
    return Shards(args.train_shards, args.test_shards, args.train_images, args.classes, args.size, args.batch_size,
                  args.workers)


def _model(args: argparse.Namespace, classes: int) -> nn.Module:
    if not args.weights and not args.from_scratch:
        return get_model(args.model, weights="DEFAULT")
    model = get_model(args.model, num_classes=classes)
    if args.weights:
        print(load_weights(model, args.weights))
    return model


if __name__ == "__main__":
    main()
