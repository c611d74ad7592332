"""Where a model is to be fast: device, threads, dtype, memory format, batch, and who runs it."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxprune.capture.pytrees import tree_map_only
from fxprune.capture.structure import deep_copy
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example, Inputs, TensorSpec, realise, specs

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLOCKS = ("wall", "thread")
DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Target:
    """What a latency budget is measured on. Data: it is written into tables and plans.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
        threads: of the CPU; as PyTorch has them set where None.
        dtype: of weights and floating inputs: float32, float16, bfloat16 or float64.
        memory_format: ``"contiguous"`` or ``"channels_last"``.
        compile: run what ``torch.compile`` makes.
        batch: the batch size; the example inputs' where None.
        backend: ``"eager"``, ``"compile"``, ``"cuda"``, ``"onnxruntime"``, ``"command"``, or one that was registered
            with `fxprune.latency.backends.register_backend`. Where empty it follows from the other arguments.
        runner: a command that is the clock, like ``"ssh phone ./bench {model}"``: ``{model}`` becomes an ONNX file,
            ``{exported}`` a ``torch.export`` one, and the last number that it prints is milliseconds.
        clock: ``"wall"``, or ``"thread"``: the processor time of the measuring thread, for one thread on a machine
            that others use as well.

    Raises:
        InputError: an argument that makes no sense, or two that contradict each other.

    >>> Target(threads=1, compile=True, batch=8).runs_on
    'compile'
    >>> print(Target("cpu", threads=1, memory_format="channels_last", batch=1))
    eager on cpu, float32, channels_last, threads: 1, batch 1
    """

    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"
    memory_format: str = "contiguous"
    compile: bool = False
    batch: int | None = None
    backend: str = ""
    runner: str = ""
    clock: str = "wall"

    def __post_init__(self) -> None:
        for name, known in (("memory_format", MEMORY_FORMATS), ("dtype", DTYPES), ("clock", CLOCKS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} of a target must be one of {', '.join(map(repr, known))}, "
                                 f"got {getattr(self, name)!r}")
        for name in ("threads", "batch"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} of a target must be a whole number of at least 1, or None, got {value!r}")
        for name in ("device", "backend", "runner"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} of a target must be a string, got {getattr(self, name)!r}")
        if self.runner and not any(place in self.runner for place in ("{model}", "{exported}")):
            raise InputError(f"runner must say where the model's file goes, got {self.runner!r}; write "
                             "runner='ssh phone ./bench {model}' for an ONNX file, {exported} for a torch.export one")
        if self.backend == "command" and not self.runner:
            raise InputError("backend='command' needs the command: write runner='./bench {model}'")
        if self.clock == "thread" and (self.threads != 1 or self.runner or not self.device.startswith("cpu")):
            raise InputError("clock='thread' counts the processor time of one thread, so that it needs threads=1 on "
                             f"the CPU and no runner, got {self}; write clock='wall'")

    @property
    def runs_on(self) -> str:
        """The backend's name."""
        if self.backend:
            return self.backend
        if self.runner:
            return "command"
        if self.compile:
            return "compile"
        return "cuda" if self.device.startswith("cuda") else "eager"

    def resolved(self, inputs: Inputs) -> "Target":
        """The same target with nothing left open: threads, batch and backend."""
        threads = self.threads or torch.get_num_threads()
        return replace(self, threads=threads, batch=self.batch or batch_of(inputs) or None, backend=self.runs_on)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Target":
        """From what `to_dict` gave.

        Raises:
            InputError: other fields, or values that make no sense.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != known:
            raise InputError(f"a target must have the fields {', '.join(sorted(known))}, got {data!r:.80}")
        return cls(**data)

    def __str__(self) -> str:
        said = [f"{self.runs_on} on {self.device}", self.dtype, self.memory_format]
        said += [f"threads: {self.threads}"] * bool(self.threads) + [f"batch {self.batch}"] * bool(self.batch)
        return ", ".join(said + [f"{self.clock} clock"] * (self.clock != "wall"))


def batch_of(inputs: Inputs) -> int:
    """The length of dimension 0 of the first tensor; 0 where there is none."""
    return next((spec.shape[0] for spec in specs(inputs) if spec.shape), 0)


def batched(inputs: Inputs, batch: int | None) -> Inputs:
    """The same inputs at another batch size, wherever the batch stands first.

    >>> batched(Inputs((TensorSpec((1, 3), "float32"),)), 8).args[0].shape
    (8, 3)
    """
    first = batch_of(inputs)
    if batch is None or batch == first:
        return inputs

    def change(spec: TensorSpec) -> TensorSpec:
        fits = spec.shape and spec.shape[0] == first
        return replace(spec, shape=(batch, *spec.shape[1:])) if fits else spec

    args, kwargs = tree_map_only(TensorSpec, change, (inputs.args, dict(inputs.kwargs)))
    return replace(inputs, args=args, kwargs=kwargs)


def placed(module: nn.Module, target: Target) -> nn.Module:
    """A copy of the module in eval mode, as the target has it: device, dtype and memory format."""
    moved = deep_copy(module).eval().to(target.device, getattr(torch, target.dtype))
    for weight in moved.parameters():
        # Without gradients attention is one operator, which the quick exporter to ONNX does not know.
        weight.requires_grad_(weight.is_floating_point())
    # Only four-dimensional weights have channels last.
    return moved.to(memory_format=MEMORY_FORMATS[target.memory_format])


def inputs_for(inputs: Inputs, target: Target) -> Example:
    """Random inputs of that description on the target, at its batch size."""
    made = realise(batched(inputs, target.batch), target.device, torch.Generator().manual_seed(0),
                   dtype=getattr(torch, target.dtype))
    return tree_map_only(torch.Tensor, lambda t: formatted(t, target), made)


def formatted(tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """The tensor in the target's memory format, where it has four dimensions."""
    return tensor.contiguous(memory_format=MEMORY_FORMATS[target.memory_format]) if tensor.dim() == 4 else tensor


@cache
def machine(device: str = "cpu") -> str:
    """The processor, in words and as a digest of what else its speed depends on; no name of the machine itself.

    >>> machine() == machine("cpu")
    True
    """
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    about = _processor()
    facts = f"{platform.system()} {about} {os.cpu_count()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{about} ({os.cpu_count()} cores, {hashlib.sha256(facts.encode()).hexdigest()[:8]})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()
