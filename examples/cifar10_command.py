"""What the CIFAR-10 scripts have in common on the command line: these options, and how a run begins."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from cifar10 import Split, load_cifar10


def common_options(about: str) -> argparse.ArgumentParser:
    """A parser with the options of both scripts, to add one's own to."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a torchvision folder with CIFAR-10, or a .npz file")
    add("--lr", type=float, default=0.1)
    add("--finetune-lr", type=float, default=0.05)
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, help="CPU threads; default: torch's own choice")
    return parser


def begin(args: argparse.Namespace) -> tuple[Split, Split]:
    """Set the threads, and read the images of training and of test."""
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        return load_cifar10(args.data)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"--data: {error}") from error
