"""The kept checkpoints, without training: evaluate, compress, verify, print.

For each depth the folder may hold

    resnet20.safetensors              the baseline
    resnet20_dwgl.safetensors         its DWGL-trained twin, channels ordered, before the cut
    resnet20_dwgl_plan.json           the plan drawn from that twin
    resnet20_dwgl_small.safetensors   the cut network after fine-tuning
"""

from __future__ import annotations

from pathlib import Path

import torch
from cifar10 import Split
from safetensors.torch import load_model
from tabulate import tabulate
from torch import nn
from training import evaluate

import fxprune
from fxprune.models import cifar_resnet

DEPTHS = (20, 56)


def check(test: Split, folder: Path, device: str) -> str:
    """The table.

    Raises:
        FileNotFoundError: the folder holds no baseline.
        fxprune.VerificationError: a cut network does not compute what its masked original computes.
    """
    rows = [row for depth in DEPTHS for row in _rows(depth, test, folder, device)]
    if not rows:
        raise FileNotFoundError(f"no checkpoint such as resnet20.safetensors in {folder}; train one with "
                                "examples/cifar10_dwgl.py --row baseline")
    headers = ("network", "accuracy %", "error +", "MACs pruned", "params pruned", "verified")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _rows(depth: int, test: Split, folder: Path, device: str) -> list[tuple[str, ...]]:
    name = f"resnet{depth}"
    if not (folder / f"{name}.safetensors").is_file():
        return []
    baseline = _loaded(cifar_resnet(depth), folder / f"{name}.safetensors", device)
    before = evaluate(baseline, test.images, test.labels)
    rows = [(name, f"{before:.2f}", "", "", "", "")]
    twin = folder / f"{name}_dwgl.safetensors"
    if not twin.is_file():
        return rows
    model = _loaded(cifar_resnet(depth), twin, device)
    accuracy = evaluate(model, test.images, test.labels)
    rows.append((f"{name}, DWGL", f"{accuracy:.2f}", f"{before - accuracy:+.2f}", "", "", ""))
    plan = fxprune.Plan.load(folder / f"{name}_dwgl_plan.json")
    # The digest may be that of an older fxprune; what the plan does to these weights is proven below.
    small = fxprune.apply(model, plan, weights="any")
    verification = fxprune.verify(model, small, plan)
    record = fxprune.record(small)
    _loaded(small, folder / f"{name}_dwgl_small.safetensors", device)
    accuracy = evaluate(small, test.images, test.labels)
    macs, params = (1 - getattr(record.after, kind) / getattr(record.before, kind) for kind in ("macs", "params"))
    rows.append((f"{name}, DWGL, cut, fine-tuned", f"{accuracy:.2f}", f"{before - accuracy:+.2f}", f"{macs:.2%}",
                 f"{params:.2%}", "yes" if verification else "no"))
    return rows


def _loaded(model: nn.Module, path: Path, device: str) -> nn.Module:
    load_model(model, path, device="cpu")
    return model.to(torch.device(device))
