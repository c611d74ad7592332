"""What a regulariser adds to a training step: ours, a loop under autograd, and Torch-Pruning's, side by side.

    python benchmarks/regulariser.py --threads 1 --out docs/benchmarks/regulariser.md

Every round takes one whole training step of ResNet-56 (batch 128, float32), and then, with that step's gradients in
place and the caches as it left them, one turn of every regulariser, in an order that rotates. So a machine that slows
down slows down all of them. Medians; a regulariser's share is its median over the step's.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import trange

from fxprune import analyze
from fxprune.coupling.coupling import Coupling
from fxprune.models import cifar_resnet
from fxprune.training import DWGL

STRENGTH = 1e-6


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = cifar_resnet(args.depth).to(args.device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    coupling = analyze(model, torch.zeros(1, 3, 32, 32, device=args.device))
    times = measure(model, candidates(model, coupling), args)
    text = report(times, args)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=56)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="the process's own, on a shared machine")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def candidates(model: nn.Module, coupling: Coupling) -> dict[str, Callable[[], object]]:
    """Name -> what is added to one step."""
    plain, scaled = DWGL(coupling, STRENGTH), DWGL(coupling, STRENGTH, include_scale=True)
    joint = DWGL(coupling, STRENGTH, joint=True)
    found = {
        "DWGL, proximal step": lambda: plain.proximal_(model, 0.1),
        "DWGL, proximal step, include_scale": lambda: scaled.proximal_(model, 0.1),
        "DWGL, loss term": lambda: plain(model).backward(),
        "DWGL, loss term, include_scale": lambda: scaled(model).backward(),
        "DWGL, loss term, joint": lambda: joint(model).backward(),
        "loop over layers under autograd": lambda: by_layer(model, coupling).backward(),
        "loop over filters under autograd": lambda: by_filter(model, coupling).backward(),
    }
    try:
        import torch_pruning as tp
    except ImportError:
        print("torch-pruning is not installed, and is left out: pip install torch-pruning")
        return found
    example = torch.zeros(1, 3, 32, 32, device=next(model.parameters()).device)
    options = {"importance": tp.importance.GroupMagnitudeImportance(p=2), "reg": STRENGTH, "ignored_layers": [model.fc]}
    norm = tp.pruner.GroupNormPruner(model, example, **options)
    norm.update_regularizer()
    found["Torch-Pruning GroupNormPruner.regularize"] = lambda: norm.regularize(model)
    return found


def by_layer(model: nn.Module, coupling: Coupling) -> Tensor:
    """The same sum, one layer after the other."""
    parameters = dict(model.named_parameters())
    total = torch.zeros((), device=next(model.parameters()).device)
    for group in coupling.prunable.values():
        rise = torch.linspace(1.0, 4.0, group.size, device=total.device)
        for voter in group.voters:
            total = total + (rise * parameters[voter.name].flatten(1).norm(dim=1)).sum()
    return STRENGTH * total


def by_filter(model: nn.Module, coupling: Coupling) -> Tensor:
    """The same sum, one filter after the other."""
    parameters = dict(model.named_parameters())
    terms = [(1.0 + 3.0 * i / (group.size - 1)) * parameters[voter.name][i].norm()
             for group in coupling.prunable.values() for voter in group.voters for i in range(group.size)]
    return STRENGTH * torch.stack(terms).sum()


def measure(model: nn.Module, added: dict[str, Callable[[], object]], args: argparse.Namespace) -> dict[str, list]:
    x = torch.randn(args.batch, 3, 32, 32, device=args.device)
    y = torch.randint(0, 10, (args.batch,), device=args.device)
    if args.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    # Torch-Pruning's tracing leaves the model in eval mode.
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    names = list(added)
    times: dict[str, list[float]] = {name: [] for name in ("training step", *names)}
    clock = time.process_time if args.cpu_time else time.perf_counter
    for turn in trange(args.rounds + 2, disable=None):
        rotated = names[turn % len(names):] + names[:turn % len(names)]
        for name, call in [("training step", step), *((name, added[name]) for name in rotated)]:
            spent = clocked(call, args.device, clock)
            # The first rounds build caches.
            if turn >= 2:
                times[name].append(spent)
    return times


def clocked(call: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """Milliseconds."""
    wait(device)
    started = clock()
    call()
    wait(device)
    return 1000 * (clock() - started)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def report(times: dict[str, list[float]], args: argparse.Namespace) -> str:
    step = statistics.median(times["training step"])
    rows = []
    for name, found in times.items():
        quartiles = statistics.quantiles(found, n=4)
        share = "" if name == "training step" else f"{statistics.median(found) / step:.2%}"
        rows.append([name, f"{statistics.median(found):.2f}", f"{quartiles[0]:.2f} – {quartiles[2]:.2f}", share])
    table = tabulate(rows, ("", "ms, median", "quartiles", "of a step"), tablefmt="github", disable_numparse=True,
                     colalign=("left", "right", "right", "right"))
    threads = torch.get_num_threads()
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{threads} CPU thread(s)"
    layout = "channels last" if args.channels_last else "contiguous"
    flags = (" --channels-last" if args.channels_last else "") + (" --cpu-time" if args.cpu_time else "")
    clock = "CPU time of the process (others share the machine)" if args.cpu_time else "wall time"
    return (f"# What a regulariser costs\n\nResNet-{args.depth}, batch {args.batch}, float32, {layout}, {device}, "
            f"torch {torch.__version__.split('+')[0]}, {platform.machine()}; "
            f"{args.rounds} interleaved rounds; {clock}.\n\n{table}\n\n"
            f"    python benchmarks/regulariser.py --depth {args.depth} --batch {args.batch} --rounds {args.rounds} "
            f"--threads {threads}{flags}\n")


if __name__ == "__main__":
    main()
