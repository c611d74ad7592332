"""Which dimensions of the inputs are free, proven at two lengths, and which are fixed, and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from fxprune.capture.capturing import GRAPH, Captured
from fxprune.capture.dynamic_sizes import Axis, Member, contracted, free_axes, ways
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.structure import structural_copy
from fxprune.ir import example_inputs
from fxprune.ir.example_inputs import Inputs, TensorSpec

Change = Callable[[TensorSpec], TensorSpec]
Shapes = tuple[tuple[int, ...], ...]
WEIGHTS, UNKNOWN = "the weights have as many", "no other length was compared"
# Of a dimension, before it is said that the model takes no other.
ATTEMPTS = 6


@dataclass(frozen=True)
class InputDimension:
    """One dimension of one input tensor.

    Args:
        argument: what the user calls the tensor.
        length: of the example.
        compared: the lengths at which the result was held against the original.
        why: it is fixed; empty where it is free.
    """

    argument: str
    dim: int
    length: int
    compared: tuple[int, ...]
    why: str = ""

    @property
    def free(self) -> bool:
        """Whether the result was right at two lengths, so that it takes any that the original takes."""
        return len(self.compared) > 1

    @property
    def asserted(self) -> bool:
        """Whether the result refuses any other length by itself. Where the weights decide, their operator does."""
        return not self.free and self.why not in (WEIGHTS, UNKNOWN)

    def __str__(self) -> str:
        place = f"{self.argument}[{self.dim}]"
        if self.free:
            return f"{place} free ({', '.join(map(str, self.compared))})"
        return f"{place} {'' if self.why == UNKNOWN else 'fixed '}at {self.length}: {self.why}"


def input_dimensions(captured: Captured, inputs: Inputs, compared: Sequence[Shapes], why: Mapping[Member, str]
                     ) -> tuple[InputDimension, ...]:
    """The table.

    Args:
        compared: the shapes of the input tensors in each run that was compared.
        why: what was found out about dimensions of which no other length was compared.
    """
    held = {**dict.fromkeys(contracted(captured.traced), WEIGHTS), **why}
    for traced in captured.traced:
        numbers = list(traced.tape.inputs)
        held |= {(numbers.index(fixed.tensor), fixed.dim): fixed.why for fixed in traced.fixed}
    labels, rows = list(captured.modes["eval"].tape.inputs.values()), []
    for number, spec in enumerate(example_inputs.specs(inputs)):
        for dim, length in enumerate(spec.shape):
            lengths = tuple(dict.fromkeys(shapes[number][dim] for shapes in compared))
            reason = "" if len(lengths) > 1 else held.get((number, dim), UNKNOWN)
            rows.append(InputDimension(labels[number], dim, length, lengths, reason))
    return tuple(rows)


def axes_of(captured: Captured, inputs: Inputs) -> list[Axis]:
    """The dimensions that may be free, as far as capture knows. In module mode Python reads what it likes."""
    return free_axes(captured.traced, _shapes(inputs)) if captured.mode == GRAPH else []


def all_other(axes: list[Axis]) -> Iterator[Change]:
    """Changes of specs to another length of every one of these: near the first, then one that is as divisible."""
    for part in (4, 1):
        steps = [(axis, max((axis.lengths()[0] - axis.length) // part, 1)) for axis in axes]
        if steps:
            yield resized({member: axis.length + step for axis, step in steps for member in axis.members})


def resized(lengths: Mapping[Member, int]) -> Change:
    """A change of specs, to be made of all of them in turn."""
    numbers = iter(range(1_000_000))

    def change(spec: TensorSpec) -> TensorSpec:
        number = next(numbers)
        return replace(spec, shape=tuple(lengths.get((number, dim), n) for dim, n in enumerate(spec.shape)))

    return change


@dataclass(frozen=True)
class Lengths:
    """Which other lengths the original takes, tried on the meta device, where a run costs little."""

    model: nn.Module
    inputs: Inputs

    def raised(self, lengths: Mapping[Member, int]) -> str:
        root, _ = structural_copy(self.model)
        args, kwargs = example_inputs.realise(self.inputs, "meta", change=resized(lengths))
        try:
            with torch.inference_mode(), fresh_caches(self.model):
                root.eval()(*args, **kwargs)
        except Exception as error:  # whatever a model raises, it does not take these lengths
            return f"{type(error).__name__}: {str(error)[:120]}"
        return ""

    def untold(self) -> bool:
        """Whether the meta device can tell nothing of this model."""
        return bool(self.raised({}))

    def others(self, axis: Axis) -> Iterator[tuple[Axis, int, str]]:
        """Dimensions and a length, and what the model raises there."""
        for way in ways(axis, _shapes(self.inputs)):
            for length in way.lengths()[:ATTEMPTS]:
                yield way, length, self.raised(dict.fromkeys(way.members, length))


def left(captured: Captured, inputs: Inputs, compared: Sequence[Shapes]) -> list[Axis]:
    """The dimensions that may be free, and were compared at one length only."""
    return [axis for axis in axes_of(captured, inputs)
            if len({shape[axis.members[0][0]][axis.members[0][1]] for shape in compared}) == 1]


def _shapes(inputs: Inputs) -> Shapes:
    return tuple(spec.shape for spec in example_inputs.specs(inputs))
