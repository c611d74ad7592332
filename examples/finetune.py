"""Fine-tune a compressed CIFAR-10 model: cross-entropy or distillation from the original, cosine, EMA, resume.

`fit(small, original)` is what `fxprune compress` calls with `--finetune`, after each of `--steps` compressions:

    export FINETUNE_DATA=cifar10.npz FINETUNE_EPOCHS=40 FINETUNE_DISTIL=0.7
    fxprune compress fxprune.models:resnet20 --weights examples/checkpoints/resnet20.safetensors --input 2,3,32,32 \\
        --macs 0.5 --steps 3 --finetune examples/finetune.py:fit --out pruned/

Every field of `Config` is an environment variable, FINETUNE_ and its name. A run that is interrupted goes on after its
last whole epoch when the same command is given again, and ends with the same bits.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cifar10 import Draw, Split, augment, load_cifar10, normalise
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from training import device_of, evaluate


@dataclass(frozen=True)
class Config:
    """SGD with Nesterov momentum, and a learning rate that falls to 0 as a cosine.

    `distil` is how much the original's outputs count against the labels', softened by `temperature` (Hinton et al.
    2015, "Distilling the Knowledge in a Neural Network"); 0 is cross-entropy alone. `ema` is the decay of the moving
    average of the weights that the result gets; 0 gives it the last ones. `folder` keeps checkpoints.
    """

    data: str = "runs/cifar10.npz"
    folder: str = "runs/finetune"
    epochs: int = 40
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distil: float = 0.0
    temperature: float = 4.0
    ema: float = 0.99
    seed: int = 0

    @classmethod
    def from_environment(cls) -> Config:
        """With what FINETUNE_… variables say."""
        given = {f.name: os.environ[f"FINETUNE_{f.name.upper()}"] for f in fields(cls)
                 if f"FINETUNE_{f.name.upper()}" in os.environ}
        return cls(**{name: type(getattr(cls, name))(text) for name, text in given.items()})


def fit(small: nn.Module, original: nn.Module, config: Config | None = None) -> None:
    """Train `small` in place."""
    config = config or Config.from_environment()
    train, test = load_cifar10(config.data)
    device = device_of(small)
    train, test, teacher = train.to(device), test.to(device), original.to(device).eval()
    run = Run(small, config, math.ceil(len(train) / config.batch_size))
    if run.done == 0:
        print(f"before: {evaluate(small, test.images, test.labels):.2f} % of {len(test)} test images")
    small.train()
    for epoch in range(run.done, config.epochs):
        loss = run.epoch(epoch, train, teacher)
        print(f"epoch {epoch + 1}/{config.epochs}  loss {loss:.4f}")
        run.save(epoch + 1)
    if config.ema:
        small.load_state_dict(run.average.module.state_dict())
    print(f"after: {evaluate(small.eval(), test.images, test.labels):.2f} %")


class Run:
    """What one training holds in its hands, and its checkpoint.

    Args:
        small: the model, which is trained in place.
        config: how.
        steps: updates an epoch.
    """

    def __init__(self, small: nn.Module, config: Config, steps: int):
        self.small, self.config, self.steps = small, config, steps
        self.optimizer = torch.optim.SGD(small.parameters(), lr=config.lr, momentum=config.momentum,
                                         weight_decay=config.weight_decay, nesterov=True)
        total = config.epochs * steps
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=total)
        self.average = AveragedModel(small, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.path = Path(config.folder) / f"{self._name()}.pt"
        self.done = self._resumed()

    def epoch(self, epoch: int, train: Split, teacher: nn.Module) -> float:
        """One pass over the images; the mean loss."""
        draw = Draw.of(len(train), self.config.seed, epoch, train.images.device)
        total = torch.zeros(())
        for step in range(self.steps):
            batch = slice(step * self.config.batch_size, min((step + 1) * self.config.batch_size, len(train)))
            x, y = normalise(augment(train.images, draw, batch)), train.labels[draw.order[batch]]
            loss = loss_of(self.small(x), y, teacher, x, self.config)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.average.update_parameters(self.small)
            total += loss.detach().cpu() * len(y)
        return total.item() / len(train)

    def save(self, done: int) -> None:
        """Whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save({**self._state(), "done": done, "rng": torch.get_rng_state()}, part)
        os.replace(part, self.path)

    def _resumed(self) -> int:
        """How many epochs lie behind, with their weights and state taken up."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name in ("small", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        torch.set_rng_state(saved["rng"])
        done: int = saved["done"]
        return done

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("small", "average", "optimizer", "schedule")}

    def _name(self) -> str:
        """Of this configuration and these very weights: each of several compressions has a checkpoint of its own."""
        digest = hashlib.sha256(repr(sorted(asdict(self.config).items())).encode())
        for name, tensor in self.small.state_dict().items():
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()[:16]


def loss_of(logits: Tensor, labels: Tensor, teacher: nn.Module, x: Tensor, config: Config) -> Tensor:
    """Cross-entropy, or its mean with T² · KL(teacher ‖ student) of outputs softened by T."""
    loss = F.cross_entropy(logits, labels)
    if not config.distil:
        return loss
    with torch.no_grad():
        theirs = F.log_softmax(teacher(x) / config.temperature, dim=1)
    ours = F.log_softmax(logits / config.temperature, dim=1)
    softened = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * config.temperature ** 2
    return (1 - config.distil) * loss + config.distil * softened
