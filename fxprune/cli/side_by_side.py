"""Two models on the same inputs: their MACs and parameters counted, their times measured in turns."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from fxprune.api import analyze
from fxprune.capture.example import describe
from fxprune.capture.pytrees import tree_map_only
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Inputs, TensorSpec, normalise, realise, specs
from fxprune.latency.clock import Comparison, compare
from fxprune.report.rows import inputs_in_words
from fxprune.results import Size

MODULE, PROGRAM = "module", "exported program"
_OVERLOAD = type(torch.ops.aten.add.Tensor)  # what an exported program calls


@dataclass(frozen=True)
class Bench:
    """Two models on the same inputs.

    Args:
        inputs: what they were given, in words.
        macs, params: of the original and of the small one, counted alike.
        measured: who was how fast.
        kinds: what was run of each.
    """

    inputs: str
    macs: tuple[int, int]
    params: tuple[int, int]
    measured: Comparison
    kinds: tuple[str, str] = (MODULE, MODULE)


def bench(original: nn.Module, small: nn.Module, example: Any = None, *, batch: int | None = None,
          device: str = "cpu", channels_last: bool = False, compiled: bool = False, **counts: Any) -> Bench:
    """Count and time two models on random inputs like ``example``.

    Args:
        original, small: they are copied, not moved.
        example: as for `fxprune.analyze`, or the inputs of a plan; inferred from the original where None.
        batch: the batch size; the example's where None.
        device, channels_last, compiled: how the copies are run.
        counts: ``repeats``, ``warmup`` and ``threads`` of `fxprune.compare`.

    Raises:
        InputError: no such device, or inputs that do not fit.
    """
    place = _device(device)
    if isinstance(example, Inputs):
        inputs = example
    else:
        inputs = analyze(original).inputs if example is None else describe(normalise(example))
    inputs = inputs if batch is None else _batched(inputs, batch)
    before, after = (Size.of(found, found.widths) for found in (analyze(model, inputs) for model in (original, small)))
    args, kwargs = realise(inputs, place, torch.Generator().manual_seed(0))
    models: list[Any] = [_moved(model, place) for model in (original, small)]
    if channels_last:
        models = [model.to(memory_format=torch.channels_last) for model in models]
        args, kwargs = tree_map_only(torch.Tensor, _channels_last, (args, kwargs))
    if compiled:
        models = [torch.compile(model) for model in models]
    measured = compare(models[0], models[1], args or kwargs, **counts)
    return Bench(inputs_in_words(inputs), (before.macs, after.macs), (before.params, after.params), measured)


def _batched(inputs: Inputs, batch: int) -> Inputs:
    if batch < 1:
        raise InputError(f"--batch must be at least 1, got {batch}")
    first = next((spec.shape[0] for spec in specs(inputs) if spec.shape), None)

    def change(spec: TensorSpec) -> TensorSpec:
        fits = spec.shape and spec.shape[0] == first
        return replace(spec, shape=(batch, *spec.shape[1:])) if fits else spec

    args, kwargs = tree_map_only(TensorSpec, change, (inputs.args, dict(inputs.kwargs)))
    return replace(inputs, args=args, kwargs=kwargs)


def _device(name: str) -> torch.device:
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        words = " ".join(str(error).split())[:120]
        raise InputError(f"--device must be one that this PyTorch can use, got {name!r} ({words}); write --device cpu"
                         ) from error
    return place


def _moved(model: nn.Module, place: torch.device) -> nn.Module:
    """A copy on that device. An exported program names its own device in operators that make or move tensors."""
    moved = copy.deepcopy(model).to(place)
    for part in (part for part in moved.modules() if isinstance(part, GraphModule)):
        for node in part.graph.nodes:
            if isinstance(node.target, _OVERLOAD) and isinstance(node.kwargs.get("device"), torch.device):
                node.update_kwarg("device", place)
        part.recompile()
    return moved


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
