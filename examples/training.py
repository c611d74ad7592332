"""A small training loop for CIFAR-10, shared by the examples.

The whole data set lies in memory as one uint8 tensor, on the model's device. A batch is one gather: crop, mirror and
shuffle are index arithmetic, so there are no workers, no per-image Python, and the same code runs on CPU and GPU.

All chance of an epoch is drawn at its start from (seed, epoch), on the CPU. The learning rate is a function of the
step. What else the loop carries from epoch to epoch (weights, momentum, history, torch's random state, the state of
a penalty) is in the checkpoint, and so a run that was interrupted and resumed ends with the same bits as one that was
not, on the same machine with the same number of threads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from cifar10 import Draw, Split, augment, load_cifar10, normalise, validation_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

__all__ = ["Config", "Split", "distillation", "evaluate", "fit", "learning_rate", "load_cifar10", "validation_split"]

AfterStep = Callable[[nn.Module, float], object]
ExtraLoss = Callable[[nn.Module], Tensor]
History = list[dict[str, Any]]

# The training images on which an averaged model's batch norms are estimated anew.
ESTIMATED = 12_800
CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Stateful(Protocol):
    """What changes while training and is not the model: a penalty that ramps up, an average of the weights."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object: ...


@dataclass(frozen=True)
class Config:
    """SGD with Nesterov momentum; the learning rate rises linearly over the warm-up, then falls to 0 as a cosine.

    `warmup` counts epochs and need not be whole; `bfloat16` means autocast, with weights and updates in float32.
    Without `decay_norms` weights alone decay, and biases and the norms' scales and shifts do not. `distil` is how much
    a teacher's outputs count against the labels', both softened by `temperature` (Hinton et al. 2015, "Distilling the
    Knowledge in a Neural Network"). `ema` is the decay of a moving average of the weights, which the model gets in the
    end, with the statistics of its batch norms estimated anew; 0 leaves it the last ones.
    """

    epochs: int = 40
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 1.0
    batch_size: int = 128
    label_smoothing: float = 0.0
    decay_norms: bool = True
    distil: float = 0.0
    temperature: float = 4.0
    ema: float = 0.0
    bfloat16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"warmup must lie between 0 and epochs={self.epochs}, got {self.warmup}")
        if not 0 <= self.distil <= 1 or not 0 <= self.ema < 1:
            raise ValueError(f"distil must lie in [0, 1] and ema in [0, 1), got {self.distil} and {self.ema}")


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The rate of one step, counted from 0 over the whole run.

    >>> config = Config(epochs=10, lr=0.4, warmup=2)
    >>> [round(learning_rate(config, step, steps_per_epoch=1), 3) for step in range(10)]
    [0.2, 0.4, 0.4, 0.385, 0.341, 0.277, 0.2, 0.123, 0.059, 0.015]
    """
    warmup, total = config.warmup * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def evaluate(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 500, bfloat16: bool = False) -> float:
    """Accuracy in percent of `model` in eval mode; x is uint8 [N, H, W, 3], y int64 [N]."""
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"evaluate needs as many labels as images, and at least one; got {len(x)} and {len(y)}")
    device = device_of(model)
    training = model.training
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for images, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            correct += (model(normalise(images.to(device))).argmax(1) == labels.to(device)).sum()
    model.train(training)
    return 100.0 * correct.item() / len(x)


def fit(
    model: nn.Module,
    train: Split,
    held_out: Split,
    config: Config,
    folder: Path | None = None,
    *,
    label: str = "train",
    resume: bool = False,
    after_step: AfterStep | None = None,
    extra_loss: ExtraLoss | None = None,
    state: Stateful | None = None,
    teacher: nn.Module | None = None,
) -> History:
    """Train `model` in place and return one record an epoch.

    Args:
        model: on the device where it is to be trained.
        train: images that are augmented and learnt.
        held_out: images that are only evaluated, once an epoch.
        config: the schedule.
        folder: where `checkpoint.pt` and `log.jsonl` go, after each epoch; None keeps nothing.
        label: the run's name in the log and in the progress bar.
        resume: go on after the last whole epoch in `folder`; without a checkpoint there, start at the beginning.
        after_step: called with the model and the step's learning rate after each update (a proximal step).
        extra_loss: a penalty added to the loss, computed outside of autocast.
        state: something else whose state belongs in the checkpoint.
        teacher: whose outputs `config.distil` asks for; in eval mode, on the model's device, in channels-last as well.

    Raises:
        FileExistsError: `folder` holds a run, and `resume` is not set.
        ValueError: the checkpoint is that of another configuration or data set; or `distil` without a teacher.
        FloatingPointError: the loss is no longer finite; the last checkpoint stays.
    """
    if config.distil and teacher is None:
        raise ValueError(f"distil={config.distil} needs a teacher; pass teacher=original, or distil=0")
    device = device_of(model)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(_decayed(model, config), lr=config.lr, momentum=config.momentum, nesterov=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    run = _Run(model, optimizer, train.to(device), config, state, after_step, extra_loss, teacher, average)
    held_out = held_out.to(device)
    history = _resume(run, folder, resume)
    with tqdm(
        total=config.epochs * run.steps, initial=len(history) * run.steps, desc=label, unit="step", disable=None
    ) as bar:
        for epoch in range(len(history), config.epochs):
            started = time.perf_counter()
            means = _train_epoch(run, epoch, bar)
            if not math.isfinite(means["loss"] + means["penalty"]):
                raise FloatingPointError(f"{label}: the loss of epoch {epoch + 1} is not finite ({means}); lower lr?")
            accuracy = evaluate(model, held_out.images, held_out.labels, bfloat16=config.bfloat16)
            seconds = time.perf_counter() - started
            history.append({"label": label, "epoch": epoch + 1, **means, "accuracy": accuracy, "seconds": seconds})
            _save(run, folder, history)
            tqdm.write(_line(history, config.epochs))
    if average is not None:
        model.load_state_dict(average.module.state_dict())
        update_bn((normalise(images) for images in run.train.images[:ESTIMATED].split(config.batch_size)), model)
    return history


@dataclass(frozen=True)
class _Run:
    """What one training holds in its hands."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: Split
    config: Config
    state: Stateful | None
    after_step: AfterStep | None
    extra_loss: ExtraLoss | None
    teacher: nn.Module | None
    average: AveragedModel | None

    @property
    def steps(self) -> int:
        return math.ceil(len(self.train) / self.config.batch_size)

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be continued."""
        return {**asdict(self.config), "images": len(self.train)}


def _train_epoch(run: _Run, epoch: int, bar: tqdm) -> dict[str, float]:
    """One pass over the images; means over it, read from the device once at its end."""
    run.model.train()
    device = run.train.images.device
    draw = Draw.of(len(run.train), run.config.seed, epoch, device)
    sums = torch.zeros(3, device=device)
    lr = run.config.lr
    for step in range(run.steps):
        lr = learning_rate(run.config, epoch * run.steps + step, run.steps)
        batch = slice(step * run.config.batch_size, min((step + 1) * run.config.batch_size, len(run.train)))
        sums += _train_step(run, draw, batch, lr)
        bar.update()
    loss, penalty, correct = (sums / len(run.train)).tolist()
    return {"lr": lr, "loss": loss, "penalty": penalty, "train_accuracy": 100 * correct}


def _train_step(run: _Run, draw: Draw, batch: slice, lr: float) -> Tensor:
    """One update; the batch's sums of loss, penalty and right answers, left on the device."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    x, y = normalise(augment(run.train.images, draw, batch)), run.train.labels[draw.order[batch]]
    with torch.autocast(x.device.type, torch.bfloat16, enabled=run.config.bfloat16):
        logits = run.model(x)
        loss = F.cross_entropy(logits, y, label_smoothing=run.config.label_smoothing)
        if run.teacher is not None and run.config.distil:
            with torch.no_grad():
                theirs = run.teacher(x)
            loss = torch.lerp(loss, distillation(logits, theirs, run.config.temperature), run.config.distil)
    penalty = torch.zeros_like(loss) if run.extra_loss is None else run.extra_loss(run.model)
    (loss + penalty).backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.after_step is not None:
        run.after_step(run.model, lr)
    if run.average is not None:
        run.average.update_parameters(run.model)
    correct = (logits.detach().argmax(1) == y).float().mean()
    return torch.stack([loss.detach(), penalty.detach(), correct]).float() * len(y)


def distillation(logits: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of outputs [B, classes] that T softens, the mean over the batch; in float32.

    >>> distillation(torch.tensor([[0.0, 2.0]]), torch.tensor([[5.0, 7.0]]), 4.0).item()
    0.0
    """
    theirs, ours = (F.log_softmax(outputs.float() / temperature, dim=1) for outputs in (theirs, logits))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def _decayed(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    """The optimizer's groups: what decays, and what does not."""
    free = [p for p in model.parameters() if p.dim() <= 1 and not config.decay_norms]
    kept = [p for p in model.parameters() if p.dim() > 1 or config.decay_norms]
    groups = [{"params": kept, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _resume(run: _Run, folder: Path | None, resume: bool) -> History:
    """Load the checkpoint, if there is one to go on from; otherwise an empty history."""
    if folder is None or not (folder / CHECKPOINT).exists():
        return []
    if not resume:
        raise FileExistsError(f"{folder} already holds a run; pass resume=True (--resume) to go on, or another folder")
    saved = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    # What a checkpoint does not know was not there when it was written, and so at its default.
    there, here = {**asdict(Config()), **saved["config"]}, run.identity
    differs = [f"{key}={there.get(key)!r} there, {here[key]!r} here" for key in here if there.get(key) != here[key]]
    if differs:
        raise ValueError(f"{folder} holds a run of another configuration ({'; '.join(differs)}); use another folder")
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    if run.state is not None:
        run.state.load_state_dict(saved["state"])
    if run.average is not None:
        run.average.load_state_dict(saved["average"])
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_rng"])
    history: History = saved["history"]
    return history


def _save(run: _Run, folder: Path | None, history: History) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "state": {} if run.state is None else dict(run.state.state_dict()),
        "average": {} if run.average is None else run.average.state_dict(),
        "config": run.identity,
        "history": history,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with _replacing(folder / CHECKPOINT) as target:
        torch.save(content, target)
    # The log is written from the history, not appended to, so that an interruption leaves no epoch in it twice.
    with _replacing(folder / LOG) as target:
        target.write_text("".join(json.dumps(record) + "\n" for record in history))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place once it is whole: an interruption leaves the old one."""
    beside = path.with_name(path.name + ".part")
    yield beside
    os.replace(beside, path)


def _line(history: History, epochs: int) -> str:
    """What a log shows of an epoch; where there is no terminal, there is no bar and this carries the ETA."""
    last = history[-1]
    left = sum(record["seconds"] for record in history) / len(history) * (epochs - len(history))
    return (
        f"{last['label']}  epoch {last['epoch']}/{epochs}  lr {last['lr']:.4f}  loss {last['loss']:.4f}  "
        f"penalty {last['penalty']:.4f}  train {last['train_accuracy']:.2f} %  held out {last['accuracy']:.2f} %  "
        f"{last['seconds']:.0f} s  ETA {left / 60:.0f} min"
    )


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
