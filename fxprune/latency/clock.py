"""Latency, measured: warm-up, repeats, median and spread, and models that take turns.

A machine that others share slows down and recovers within seconds. Two models timed one after the other are then
compared at two speeds of the machine; `compare` lets them take turns and reports the median of the *rounds'* ratios,
in which what slowed down both cancels.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.example import check
from fxprune.capture.pytrees import tree_iter
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example, normalise
from fxprune.latency.samples import interleaved
from fxprune.results import found_record


@dataclass(frozen=True)
class Latency:
    """How long one forward pass takes, in eval mode and without gradients.

    Args:
        median: seconds.
        spread: lower and upper quartile, in seconds.
        repeats: how many passes were timed.
        threads: of PyTorch on the CPU.
        dtype: of the weights.
        device: where it ran.
        batch: the length of dimension 0 of the first input tensor; 0 where there is none.

    >>> print(Latency(0.0123, (0.012, 0.0131), 50, 1, "float32", "cpu", 8))
    12.3 ms (12 – 13.1) at batch 8, float32, cpu, threads: 1, repeats: 50
    """

    median: float
    spread: tuple[float, float]
    repeats: int
    threads: int
    dtype: str
    device: str
    batch: int

    @property
    def setting(self) -> str:
        """What it was measured on, in words."""
        return f"batch {self.batch}, {self.dtype}, {self.device}, threads: {self.threads}, repeats: {self.repeats}"

    def __str__(self) -> str:
        low, high = self.spread
        return f"{1000 * self.median:.3g} ms ({1000 * low:.3g} – {1000 * high:.3g}) at {self.setting}"


@dataclass(frozen=True)
class Comparison:
    """Two models that took turns.

    Args:
        original, small: each one's own `Latency`.
        ratio: the median over the rounds of original / small: how many times faster ``small`` is.
        spread: the quartiles of that.
        macs: MACs of the original over those of ``small``, where ``small`` carries a record, else None.

    >>> one = Latency(0.010, (0.009, 0.011), 50, 1, "float32", "cpu", 8)
    >>> two = Latency(0.006, (0.005, 0.007), 50, 1, "float32", "cpu", 8)
    >>> print(Comparison(one, two, 1.67, (1.6, 1.75), 2.0))
    1.67× faster (1.60 – 1.75) at 2.00× fewer MACs; batch 8, float32, cpu, threads: 1, repeats: 50
    """

    original: Latency
    small: Latency
    ratio: float
    spread: tuple[float, float]
    macs: float | None = None

    def __str__(self) -> str:
        low, high = self.spread
        macs = "" if self.macs is None else f" at {self.macs:.2f}× fewer MACs"
        return f"{self.ratio:.2f}× faster ({low:.2f} – {high:.2f}){macs}; {self.small.setting}"


def measure(model: nn.Module, inputs: Any, *, repeats: int = 50, warmup: int = 10, threads: int | None = None,
            ) -> Latency:
    """Time the forward pass of a model, in eval mode and without gradients. The model's own modes are restored.

    Args:
        model: any module, compiled ones included; on its device.
        inputs: a tensor, a tuple of positional arguments or a dict of keyword arguments, on that device.
        repeats: how many passes are timed.
        warmup: how many run before; compilation and the choice of kernels happen there.
        threads: of PyTorch on the CPU; as they are set where None, and as they were afterwards.

    Raises:
        InputError: inputs of another device or dtype, or counts that make no sense.

    >>> measure(nn.Linear(4, 4), torch.randn(8, 4), repeats=3, warmup=1, threads=1).batch
    8
    """
    example = _checked([model], inputs, repeats, warmup, threads)
    with cpu_threads(threads):
        times = _turns([model], example, repeats, warmup)
        return _latency(model, example, times[0])


def compare(original: nn.Module, small: nn.Module, inputs: Any, *, repeats: int = 50, warmup: int = 10,
            threads: int | None = None) -> Comparison:
    """Time two models that take turns, and who begins a round changes as well.

    Args:
        original, small: on one device. ``small`` may be any model; MACs are known where `compress` made it.
        inputs, repeats, warmup, threads: as for `measure`.

    Raises:
        InputError: as for `measure`.

    >>> wide, narrow = nn.Linear(64, 64), nn.Linear(64, 8)
    >>> found = compare(wide, narrow, torch.randn(8, 64), repeats=3, warmup=1, threads=1)
    >>> found.original.repeats, found.spread[0] <= found.ratio <= found.spread[1]
    (3, True)
    """
    models = [original, small]
    example = _checked(models, inputs, repeats, warmup, threads)
    with cpu_threads(threads):
        times = _turns(models, example, repeats, warmup)
        before, after = (_latency(model, example, each) for model, each in zip(models, times, strict=True))
    ratios = times[0] / times[1]
    return Comparison(before, after, float(np.median(ratios)), _quartiles(ratios), _macs(small))


def _checked(models: list[nn.Module], inputs: Any, repeats: int, warmup: int, threads: int | None) -> Example:
    for name, value, least in (("repeats", repeats, 1), ("warmup", warmup, 0), ("threads", threads, 1)):
        if name == "threads" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    example = normalise(inputs)
    for model in models:
        if not isinstance(model, nn.Module):
            raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        check(model, example)
    return example


def _turns(models: list[nn.Module], example: Example, repeats: int, warmup: int) -> np.ndarray:
    """Seconds, float64 [models, repeats]."""
    args, kwargs = example
    clock = _clock(_device(models[0], example))
    calls = [partial(clock, partial(model, *args, **kwargs)) for model in models]
    # Not in inference mode: what a model caches in forward would be of no use to its training afterwards. What train()
    # or eval() a module had comes back.
    with _eval(models), torch.no_grad():
        return interleaved(calls, repeats, warmup)


def _clock(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    if device.type != "cuda":
        return _wall_time

    def events(call: Callable[[], Any]) -> float:
        event: Callable[..., Any] = torch.cuda.Event
        start, end = (event(enable_timing=True) for _ in range(2))
        # What is still queued from the turn before would be counted in.
        torch.cuda.synchronize(device)
        with torch.cuda.device(device):
            start.record()
            call()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return events


def _wall_time(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _latency(model: nn.Module, example: Example, times: np.ndarray) -> Latency:
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    tensors = [item for item in tree_iter(example) if isinstance(item, torch.Tensor)]
    floating = weight if weight is not None else next((t for t in tensors if t.is_floating_point()), None)
    return Latency(
        float(np.median(times)), _quartiles(times), len(times), torch.get_num_threads(),
        str(floating.dtype if floating is not None else torch.get_default_dtype()).removeprefix("torch."),
        str(_device(model, example)), next((t.shape[0] for t in tensors if t.dim()), 0),
    )


def _device(model: nn.Module, example: Example) -> torch.device:
    tensors = (*model.parameters(), *model.buffers(), *tree_iter(example))
    return next((t.device for t in tensors if isinstance(t, torch.Tensor)), torch.device("cpu"))


def _quartiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(low), float(high)


def _macs(small: nn.Module) -> float | None:
    # torch.compile hides the module that carries the record.
    record = found_record(getattr(small, "_orig_mod", small))
    return record.before.macs / record.after.macs if record is not None and record.after.macs else None


@contextmanager
def _eval(models: list[nn.Module]) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        # Parents first: train() reaches the children, which are set right afterwards. Assigning the attribute alone
        # would pass by whoever does more in train() than that.
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """So many threads of PyTorch on the CPU while the block runs; as they are where None."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
