"""A few operator calls with their sizes left open: run alone, at any widths, on any backend.

A program is made from calls of the recorded run. Its tensors are *slots*, whose dimensions are numbers or axes; at
given lengths of the axes it becomes a ``GraphModule`` on random values. Few operators are told a size as an argument
(``SIZES``). Whether the others run at narrower widths too, and give the shapes that the coupling predicts, is tried on
the meta device before anybody measures them.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule

from fxprune.capture.dispatch import argument_names, storage_of, writes
from fxprune.ir.example_inputs import Example
from fxprune.ir.trees import mapped, tensors_in
from fxprune.latency.target import Target, formatted

PARAM, INPUT, MADE = "param", "input", "made"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Use:
    """Stands for a slot in a call's arguments."""

    slot: int


@dataclass(frozen=True)
class Slot:
    """One tensor.

    Args:
        kind: ``"param"``, ``"input"`` or ``"made"``.
        dims: sizes; -1 - k is axis k.
    """

    kind: str
    dims: tuple[int, ...]

    def shape(self, lengths: Sequence[int]) -> Shape:
        """At these lengths of the axes."""
        return tuple(n if n >= 0 else lengths[-1 - n] for n in self.dims)


@dataclass(frozen=True)
class Step:
    """One call; ``outs`` are the slots that it makes."""

    op: str
    overload: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outs: tuple[int, ...]

    @property
    def function(self) -> Any:
        """The operator."""
        namespace, _, name = self.op.partition("::")
        return getattr(getattr(getattr(torch.ops, namespace), name), self.overload)

    def named(self) -> dict[str, Any]:
        """The arguments by their names in the operator's schema."""
        return {**dict(zip(argument_names(self.function), self.args, strict=False)), **self.kwargs}


def _groups(value: int, shapes: Mapping[str, Shape], out: Shape) -> int:
    """Of a convolution, from the weight's second dimension: channels of one group, read or (transposed) made."""
    weight = shapes["weight"]
    channel = len(out) - len(weight) + 1
    read = shapes["input"][channel] // weight[1]
    return read if read * weight[1] == shapes["input"][channel] and weight[0] % read == 0 and \
        weight[0] == out[channel] else out[channel] // weight[1]


def _normalized_shape(value: Sequence[int], shapes: Mapping[str, Shape], out: Shape) -> list[int]:
    return list(shapes["input"][-len(value):])


def _num_groups(value: int, shapes: Mapping[str, Shape], out: Shape) -> int:
    return math.gcd(value, shapes["input"][1])


# Arguments that hold a size of channels, by their name in the schema: from the shapes of the tensors beside them.
SIZES: dict[str, Callable[[Any, Mapping[str, Shape], Shape], Any]] = {
    "groups": _groups, "normalized_shape": _normalized_shape, "num_groups": _num_groups,
}


@dataclass(frozen=True, eq=False)
class Program:
    """Calls in order, over slots."""

    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]

    def key(self, lengths: Sequence[int]) -> str:
        """The calls with the shapes of what goes in, as text: what a table's entry is called."""

        def shown(value: Any) -> str:
            if isinstance(value, Use):
                slot = self.slots[value.slot]
                return f"%{value.slot}" if slot.kind == MADE else "x".join(map(str, slot.shape(lengths))) or "1"
            if isinstance(value, (list, tuple)):
                return f"[{', '.join(map(shown, value))}]"
            return str(value)

        texts, before = [], set()
        for step in self.steps:
            args, kwargs = self._sized(step, lengths)
            # What the call before made goes without saying.
            said = [shown(value) for value in args if not (isinstance(value, Use) and value.slot in before)]
            said += [f"{name}={shown(value)}" for name, value in kwargs.items()]
            texts.append(f"{step.op.removeprefix('aten::')}({', '.join(said)})")
            before = set(step.outs)
        return " ".join(texts)

    def refusal(self, full: Sequence[int], narrow: Sequence[int]) -> str | None:
        """Why it cannot be run alone; an empty string where there is nothing to run, since it only looks at memory in
        another way; None where it can."""
        for lengths in (full, narrow):
            try:
                module, inputs = self._on_meta(lengths)
                outs = list(tensors_in(module(*inputs)))
            except Exception as error:  # any operator may say no, each in its own way
                return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            wanted = [self.slots[slot].shape(lengths) for slot in self.steps[-1].outs]
            if [tuple(out.shape) for out in outs] != wanted:
                return f"gives {[list(out.shape) for out in outs]} where {wanted} are predicted"
            if lengths is full and self._looks_only(module, inputs, outs):
                return ""
        return None

    def module(self, lengths: Sequence[int], target: Target) -> tuple[GraphModule, Example]:
        """The calls as a module in eval mode on the target, and inputs for it."""
        make = torch.Generator().manual_seed(0)
        dtype = getattr(torch, target.dtype)

        def tensor(slot: Slot) -> torch.Tensor:
            # Small and positive, so that variances are fine and no sum overflows half precision.
            values = torch.rand(slot.shape(lengths), generator=make).mul_(0.05).add_(0.01)
            return formatted(values.to(target.device, dtype), target)

        inputs = tuple(tensor(slot) for slot in self.slots if slot.kind == INPUT)
        return self._graph(lengths, tensor), (inputs, {})

    def _on_meta(self, lengths: Sequence[int]) -> tuple[GraphModule, tuple[torch.Tensor, ...]]:
        def tensor(slot: Slot) -> torch.Tensor:
            return torch.empty(slot.shape(lengths), device="meta")

        return self._graph(lengths, tensor), tuple(tensor(slot) for slot in self.slots if slot.kind == INPUT)

    def _looks_only(self, module: GraphModule, inputs: Sequence[torch.Tensor], outs: Sequence[torch.Tensor]) -> bool:
        if any(writes(step.function) for step in self.steps):
            return False
        given = {storage_of(t) for t in (*inputs, *module.buffers())}
        return all(storage_of(out) in given for out in outs)

    def _graph(self, lengths: Sequence[int], tensor: Callable[[Slot], torch.Tensor]) -> GraphModule:
        graph, root, nodes = Graph(), nn.Module(), {}
        for place, slot in enumerate(self.slots):
            if slot.kind == INPUT:
                nodes[place] = graph.placeholder(f"x{place}")
        for place, slot in enumerate(self.slots):
            if slot.kind == PARAM:
                root.register_buffer(f"p{place}", tensor(slot))
                nodes[place] = graph.get_attr(f"p{place}")
        for step in self.steps:
            args, kwargs = mapped(self._sized(step, lengths), lambda use: nodes[use.slot], Use)
            made = graph.call_function(self._function(step), args, kwargs)
            for number, out in enumerate(step.outs):
                nodes[out] = graph.call_function(operator.getitem, (made, number)) if len(step.outs) > 1 else made
        outs = [nodes[out] for out in self.steps[-1].outs]
        graph.output(outs[0] if len(outs) == 1 else tuple(outs))
        return GraphModule(root, graph).eval()

    def _sized(self, step: Step, lengths: Sequence[int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments at these lengths; one that holds a size is given by name."""
        named = {name: value for name, value in step.named().items() if name in SIZES}
        if not named:
            return step.args, dict(step.kwargs)
        shapes = {name: self.slots[value.slot].shape(lengths) for name, value in step.named().items()
                  if isinstance(value, Use)}
        out = self.slots[step.outs[0]].shape(lengths)
        changed = {name: SIZES[name](value, shapes, out) for name, value in named.items()}
        arguments = argument_names(step.function)
        args = tuple(changed.pop(name, value) for name, value in zip(arguments, step.args, strict=False))
        return args, {**step.kwargs, **changed}

    def _function(self, step: Step) -> Any:
        """The operator; one that writes into an input of the program as its other form, so that passes are alike."""
        first = next((value for value in step.args if isinstance(value, Use)), None)
        base = step.op.partition("::")[2].rstrip("_")
        if first is None or self.slots[first.slot].kind == MADE or not writes(step.function):
            return step.function
        packet = getattr(torch.ops.aten, base, None) if step.op.startswith("aten::") else None
        return getattr(packet, step.overload, step.function) if packet is not None else step.function
