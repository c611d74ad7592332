"""Prune in the middle of a training: the optimizer's momentum is sliced along with the weights, and training goes on.

    python examples/mid_training.py
    torchrun --nproc-per-node 2 examples/mid_training.py
"""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

import fxprune
from fxprune.training.ranks import check_ranks

STEPS = 40


def main(steps: int = STEPS) -> tuple[nn.Module, list[float]]:
    many = "RANK" in os.environ
    if many:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 4),
    )
    optimizer: Optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = train(wrapped(model), optimizer, steps)
    print(f"before: loss {losses[-1]:.3f}")

    for buffer in model.buffers() if many else ():
        # Each rank's batch norms have seen its own batches last.
        dist.broadcast(buffer, src=0)
    coupling = fxprune.analyze(model, torch.randn(2, 1, 16, 16))
    plan = fxprune.plan(coupling, model, macs=0.5)
    if many:
        check_ranks(plan, model)
    small = fxprune.apply(model, plan)
    # A new optimizer over the small model's parameters, with the same options; the old one is left as it is.
    optimizer = plan.apply_to_optimizer(optimizer, model, small)
    momentum = optimizer.state[small.get_parameter("4.weight")]["momentum_buffer"]
    print(f"{plan}; momentum of layer 4: {list(momentum.shape)}")

    losses += train(wrapped(small), optimizer, steps)
    print(f"after: loss {losses[-1]:.3f}")
    if many:
        dist.destroy_process_group()
    return small, losses


def wrapped(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model) if dist.is_initialized() else model


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> list[float]:
    """Tell horizontal, vertical, diagonal and no stripes apart."""
    # Each rank has examples of its own.
    generator = torch.Generator().manual_seed(1 + int(os.environ.get("RANK", 0)))
    losses = []
    model.train()
    for _ in range(steps):
        labels = torch.randint(0, 4, (32,), generator=generator)
        loss = F.cross_entropy(model(stripes(labels, generator)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def stripes(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    waves = torch.stack([rows, columns, rows + columns, torch.zeros(16, 16)]).mul(1.5).sin()
    return waves[labels][:, None] + 0.5 * torch.randn(len(labels), 1, 16, 16, generator=generator)


if __name__ == "__main__":
    main()
