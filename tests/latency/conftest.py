"""A backend whose time is a known function of the shapes of what runs, and that can be told to be noisy or to drift."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fxprune
from fxprune.latency.backends import BACKENDS

# Seconds per multiply-accumulate, per value that is written, and per operator.
MAC, VALUE, CALL = 1e-9, 2e-10, 1e-7


class Work(TorchDispatchMode):
    """Adds up the time of every operator that runs; convolutions pay for blocks of ``block`` channels out."""

    def __init__(self, block):
        super().__init__()
        self.block, self.seconds = block, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) else out
        # What is done to one value is nothing beside a call.
        if isinstance(first, torch.Tensor) and not func.is_view and first.numel() > 1:
            self.seconds += CALL + VALUE * first.numel() + MAC * self.macs(func, args, first)
        return out

    def macs(self, func, args, out):
        if func is torch.ops.aten.convolution.default:
            weight = args[1]
            positions = out.shape[0] * math.prod(out.shape[2:])
            return positions * -(-weight.shape[0] // self.block) * self.block * weight[0].numel()
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            return out.numel() * args[-2].shape[-1]
        return 0


@dataclass
class Fake:
    """See the module. ``slower`` is by how much a whole model is slower than its layers, ``idle`` what a call takes in
    which nothing is done; ``speed`` is asked anew for every pass."""

    block: int = 1
    slower: float = 1.0
    noise: float = 0.0
    idle: float = CALL
    step: int = 4
    dear: bool = False
    session: bool = True
    name: str = "fake"
    version: str = "1"
    passes: int = 0
    prepared: list = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def speed(self):
        return 1.0

    def prepare(self, module, inputs):
        with torch.no_grad(), Work(self.block) as work:
            module(*inputs[0], **inputs[1])
        layer = any(name.startswith("p") and name[1:].isdigit() for name, _ in module.named_buffers())
        self.prepared.append("layer" if layer else "model")
        return partial(self._pass, self.idle + work.seconds * (1.0 if layer else self.slower))

    def _pass(self, seconds):
        self.passes += 1
        return seconds * self.speed() * float(np.exp(self.noise * self.rng.standard_normal()))


@pytest.fixture
def fake():
    """The backend ``"fake"``; tests change it."""
    backend = Fake()
    BACKENDS["fake"] = lambda target: backend
    yield backend
    del BACKENDS["fake"]


@pytest.fixture
def target():
    return fxprune.Target(threads=1, backend="fake")
