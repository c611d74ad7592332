"""Compress the same models at the same ratio with fxprune and with Torch-Pruning, in turn, one process each.

    pip install fxprune[bench]
    python -m benchmarks.peer --models resnet50 densenet201 --out docs/benchmarks/peer.md

Each gets a fresh copy of one model; the clock runs from the call to the pruned module. Torch-Pruning is used as its
authors' own script uses it (``MagnitudePruner``, the classifier ignored, its consistency checks as they ship); its
dependency graph is built inside the clock, as our capture is. Times are processor time on one thread, the best of
several rounds, so that what else runs on the machine does not count; memory is how much the process grows at its peak.
"""

import argparse
import copy
import gc
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from torch import nn

import fxprune

RATIO = 0.5
MODELS = ("resnet18", "resnet50", "mobilenet_v2", "densenet121", "densenet201", "vit_b_16", "efficientnet_b0", "vgg16",
          "regnet_y_400mf", "regnet_x_1_6gf", "convnext_tiny", "googlenet", "mnasnet1_0", "squeezenet1_1")


def ours(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return fxprune.compress(model, x, channels=RATIO, verify=False)


def ours_verified(model: nn.Module, x: torch.Tensor) -> nn.Module:
    return fxprune.compress(model, x, channels=RATIO)


def theirs(model: nn.Module, x: torch.Tensor) -> nn.Module:
    pruner(model, x, RATIO).step()
    return model


def pruner(model: nn.Module, x: torch.Tensor, ratio: float, **options: Any) -> Any:
    """Torch-Pruning's, by magnitude, with what it has to be told of a model."""
    import torch_pruning

    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    heads += [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 1000]
    attention = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    tokens = [p for name, p in model.named_parameters() if name.endswith(("class_token", "pos_embedding"))]
    layers = [(p, len(p.shape) - 1) for p in tokens]
    layers += [(m.layer_scale, 0) for m in model.modules() if hasattr(m, "layer_scale")]
    return torch_pruning.pruner.MagnitudePruner(
        model.eval(), x, importance=torch_pruning.importance.GroupMagnitudeImportance(), pruning_ratio=ratio,
        ignored_layers=heads, unwrapped_parameters=layers, num_heads=attention, **options)


def measured(compress: Callable[..., nn.Module], model: nn.Module, x: torch.Tensor) -> tuple[float, int, float]:
    """Seconds, bytes, and the share of parameters that is kept."""
    copied = copy.deepcopy(model)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, the parent's before the fork, is none of ours
    before = _peak()
    start = time.process_time()
    small = compress(copied, x)
    seconds = time.process_time() - start
    peak = _peak()
    with torch.no_grad():
        small.eval()(x)
    count = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    return seconds, peak - before, count[1] / count[0]


def _peak() -> int:
    """The most bytes that this process has held at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def once(*job: Any) -> tuple[float, int, float]:
    """`measured` in a process of its own, forked from this one: nobody's memory is another's head start."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_child, args=(there, job))
    process.start()
    there.close()
    outcome = here.recv()
    process.join()
    if isinstance(outcome, str):
        raise RuntimeError(outcome)
    return outcome


def _child(pipe: Any, job: tuple[Any, ...]) -> None:
    try:
        pipe.send(measured(*job))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def best(runs: list[tuple[float, int, float]]) -> tuple[float, int, float] | None:
    return (min(r[0] for r in runs), min(r[1] for r in runs), runs[0][2]) if runs else None


def compare(name: str, rounds: int, verified: bool) -> list[Any]:
    """Best of the interleaved rounds: ours, theirs, ours with verification (None where it fails)."""
    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name, weights=None), torch.randn(1, 3, 224, 224)
    runs: dict[Callable[..., nn.Module], list] = {ours: [], theirs: []}
    broken = set()
    for _ in range(rounds):
        for side, kept in runs.items():
            if side in broken:
                continue
            try:
                kept.append(once(side, model, x))
            except Exception as error:
                print(f"{name}: {side.__name__} failed: {type(error).__name__}: {str(error)[:200]}", flush=True)
                broken.add(side)
    return [best(runs[ours]), best(runs[theirs]), once(ours_verified, model, x) if verified else None]


def page(rows: dict[str, list[Any]]) -> str:
    both = [(a, b) for a, b, _ in rows.values() if a and b]
    ratios = [a[0] / b[0] for a, b in both]
    lines = [__doc__.split("\n\n")[0], "", f"Python {platform.python_version()}, torch {torch.__version__}, one CPU "
             "thread. Made by `python -m benchmarks.peer`; the docstring there says how.", "",
             f"Our time over theirs, where both succeed: median {median(ratios):.2f}, at most {max(ratios):.2f}, sums "
             f"{sum(a[0] for a, _ in both):.2f} s and {sum(b[0] for _, b in both):.2f} s.", "",
             "| model | fxprune (s) | Torch-Pruning (s) | ratio | fxprune, verified (s) | memory (MB) | theirs (MB) | "
             "kept | theirs |", "|---|" + "---:|" * 8]
    for name, (mine, other, proven) in rows.items():
        seconds = [f"{r[0]:.3f}" if r else "fails" for r in (mine, other)]
        ratio = f"{mine[0] / other[0]:.2f}" if mine and other else ""
        memory = [f"{r[1] / 2**20:.0f}" if r else "" for r in (mine, other)]
        kept = [f"{r[2]:.1%}" if r else "" for r in (mine, other)]
        lines.append("| " + " | ".join([name, *seconds, ratio, f"{proven[0]:.1f}" if proven else "", *memory, *kept])
                     + " |")
    return "# Side by side with Torch-Pruning\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verified", action="store_true", help="a column with verify=True")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = torchvision.models.resnet18()
    ours(small, torch.randn(1, 3, 64, 64)), theirs(small, torch.randn(1, 3, 64, 64))  # imports and first calls
    rows = {}
    for name in options.models:
        rows[name] = compare(name, options.rounds, options.verified)
        print(name, rows[name], flush=True)
    text = page(rows)
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
