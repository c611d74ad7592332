"""Fine-tune a compressed CIFAR-10 model: cross-entropy or distillation from the original, cosine, EMA, resume.

`fit(small, original)` is what `fxprune compress` calls with `--finetune`, after each of `--steps` compressions:

    export FINETUNE_DATA=cifar10.npz FINETUNE_EPOCHS=40 FINETUNE_DISTIL=0.7
    fxprune compress fxprune.models:resnet20 --weights examples/checkpoints/resnet20.safetensors --input 2,3,32,32 \\
        --macs 0.5 --steps 3 --finetune examples/finetune.py:fit --out pruned/

Every field of `FineTuning` is an environment variable, FINETUNE_ and its name. A run that is interrupted goes on after
its last whole epoch when the same command is given again, and ends with the same bits.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import training
from cifar10 import load_cifar10
from torch import nn
from training import Config, device_of, evaluate


@dataclass(frozen=True)
class FineTuning(Config):
    """A training's configuration, where the images are, and the folder that keeps checkpoints."""

    data: str = "runs/cifar10.npz"
    folder: str = "runs/finetune"
    lr: float = 0.05
    warmup: float = 0.0
    ema: float = 0.99

    @classmethod
    def from_environment(cls) -> FineTuning:
        """With what FINETUNE_… variables say."""
        given = {f.name: os.environ[f"FINETUNE_{f.name.upper()}"] for f in fields(cls)
                 if f"FINETUNE_{f.name.upper()}" in os.environ}
        return cls(**{name: text if name in ("data", "folder") else ast.literal_eval(text)
                      for name, text in given.items()})

    @property
    def config(self) -> Config:
        return Config(**{f.name: getattr(self, f.name) for f in fields(Config)})


def fit(small: nn.Module, original: nn.Module, chosen: FineTuning | None = None) -> None:
    """Train `small` in place."""
    chosen = chosen or FineTuning.from_environment()
    train, test = load_cifar10(chosen.data)
    folder = Path(chosen.folder) / name_of(small, chosen.config)
    teacher = copy.deepcopy(original).to(device_of(small), memory_format=torch.channels_last).eval()
    print(f"before: {evaluate(small, test.images, test.labels):.2f} % of {len(test)} test images")
    training.fit(small, train, test, chosen.config, folder, label="fine-tuned", resume=True, teacher=teacher)
    print(f"after: {evaluate(small.eval(), test.images, test.labels):.2f} %")


def name_of(small: nn.Module, config: Config) -> str:
    """Of this configuration and these very weights: each of several compressions has a checkpoint of its own."""
    digest = hashlib.sha256(repr(sorted(asdict(config).items())).encode())
    for name, tensor in small.state_dict().items():
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]
