"""One phase of a training on many GPUs: DDP, mixed precision, an average of the weights, resumption."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from imagenet_data import Data, rank, world
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from training import Config, learning_rate

import fxprune


@dataclass(frozen=True)
class Phase:
    """What a phase is called and how it goes; batch norms, other norms and biases do not decay.

    Args:
        schedule: epochs, warm-up, rate, momentum, decay; its batch size is that of all ranks together.
        amp: the dtype of autocast, ``"bfloat16"`` or ``"float16"`` (with a gradient scaler), or ``"float32"``.
        ema: the decay of the weights' average; 0 keeps none.
    """

    name: str
    schedule: Config
    amp: str = "bfloat16"
    ema: float = 0.0


@dataclass
class State:
    """All that changes while training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    penalty: fxprune.DWGL | None
    history: list[dict[str, Any]]

    def saved(self) -> dict[str, Any]:
        return {name: value.state_dict() for name, value in self._parts().items()} | {"history": self.history}

    def load(self, saved: dict[str, Any]) -> None:
        for name, value in self._parts().items():
            value.load_state_dict(saved[name])
        self.history[:] = saved["history"]

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler, "ema": self.ema,
                 "penalty": self.penalty}
        return {name: value for name, value in parts.items() if value is not None}


def fit(model: nn.Module, data: Data, phase: Phase, folder: Path, *, resume: bool,
        penalty: fxprune.DWGL | None = None) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train ``model`` in place; the network to be judged (its average, where one is kept), and a record an epoch.

    After an interruption the same call with ``resume`` goes on after the last whole epoch, with the same batches.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    state = State(model, torch.optim.SGD(_groups(model, phase.schedule), lr=phase.schedule.lr, nesterov=True,
                                         momentum=phase.schedule.momentum),
                  torch.amp.GradScaler(device.type, enabled=phase.amp == "float16"),
                  AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(phase.ema), use_buffers=True)
                  if phase.ema else None, penalty, [])
    checkpoint = folder / f"{phase.name}.pt"
    if checkpoint.exists():
        if not resume:
            raise SystemExit(f"{checkpoint} is there already; add --resume to go on, or name another --out")
        state.load(torch.load(checkpoint, map_location=device, weights_only=True))
    wrapped = DistributedDataParallel(model, [device] if device.type == "cuda" else None) if world() > 1 else model
    for epoch in range(len(state.history), phase.schedule.epochs):
        _epoch(state, wrapped, data, phase, epoch)
        _agree(state)
        state.history[-1]["accuracy"] = accuracy(_judged(state), data, phase.amp)
        if rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _save(state.saved(), checkpoint)
            tqdm.write(json.dumps(state.history[-1]))
    return _judged(state), state.history


def _judged(state: State) -> nn.Module:
    return state.model if state.ema is None else state.ema.module


def _agree(state: State) -> None:
    """Each rank's batch norms have seen its own batches last; what rank 0 has seen holds for all."""
    if world() > 1:
        for buffer in (*state.model.buffers(), *_judged(state).buffers()):
            dist.broadcast(buffer, src=0)


def _groups(model: nn.Module, schedule: Config) -> list[dict[str, Any]]:
    decaying = [p for p in model.parameters() if p.dim() > 1]
    return [{"params": decaying, "weight_decay": schedule.weight_decay},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0}]


def _epoch(state: State, wrapped: nn.Module, data: Data, phase: Phase, epoch: int) -> None:
    # All chance of an epoch follows from it, so that a resumed run sees the same batches.
    torch.manual_seed(phase.schedule.seed * 100_003 + epoch * 1009 + rank())
    wrapped.train()
    began, losses, seen = time.perf_counter(), [], 0
    for step, (images, labels) in enumerate(tqdm(data.training(epoch), f"{phase.name} {epoch + 1}", data.steps,
                                                 disable=None if rank() == 0 else True)):
        lr = learning_rate(phase.schedule, epoch * data.steps + step, data.steps)
        losses.append(_step(state, wrapped, images, labels, phase, lr))
        seen += len(images)
    seconds = time.perf_counter() - began
    record = {"phase": phase.name, "epoch": epoch + 1, "lr": lr, "loss": torch.stack(losses).mean().item(),
              "seconds": round(seconds, 1), "images_per_second": round(seen * world() / seconds, 1)}
    if state.penalty is not None:
        record |= {"dwgl": state.penalty.line}
    state.history.append(record)


def _step(state: State, wrapped: nn.Module, images: Tensor, labels: Tensor, phase: Phase, lr: float) -> Tensor:
    device = next(state.model.parameters()).device
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    labels = labels.to(device, non_blocking=True)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(device.type, getattr(torch, phase.amp), enabled=phase.amp != "float32"):
        loss = F.cross_entropy(wrapped(images), labels, label_smoothing=phase.schedule.label_smoothing)
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.penalty is not None:
        # All ranks hold the same weights, so that the same step leaves them the same.
        state.penalty.proximal_(state.model, lr)
        state.penalty.step(state.model)
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    return loss.detach()


def accuracy(model: nn.Module, data: Data, amp: str = "float32") -> float:
    """Percent of all ranks' test images; each is counted once."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    with torch.inference_mode(), torch.autocast(device.type, getattr(torch, amp), enabled=amp != "float32"):
        for images, labels in data.test():
            right = model(images.to(device, memory_format=torch.channels_last)).argmax(1) == labels.to(device)
            counts += torch.stack([right.sum(), torch.tensor(len(labels), device=device)])
    model.train(training)
    if world() > 1:
        dist.all_reduce(counts)
    return 100.0 * counts[0].item() / counts[1].item()


def _save(content: dict[str, Any], path: Path) -> None:
    """Beside it first: an interruption leaves the old one."""
    beside = path.with_name(path.name + ".part")
    torch.save(content, beside)
    os.replace(beside, path)
