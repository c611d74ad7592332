"""What a coupling report says, as data: one row per group, and what stands below the table."""

from dataclasses import dataclass

import numpy as np

from fxprune.coupling.coupling import Coupling
from fxprune.ir.costs import Count
from fxprune.ir.example_inputs import Inputs, TensorSpec
from fxprune.ir.groups import CouplingGroup, Member


@dataclass(frozen=True)
class Row:
    """One coupling group.

    Args:
        name, channels: the group's name and size.
        voters, consumers: the layers that produce and that read its channels.
        coupled_by: names of the operators that tie the members.
        params, macs: the share of the model's parameters and MACs that goes if all of the group's channels go and all
            other groups stay whole. A weight belongs to the groups of both its dimensions, so that shares overlap: over
            a chain of layers they add up to about two.
        reason, node, source: why the channels may not go and where that is decided; empty where they may.
    """

    name: str
    channels: int
    voters: tuple[str, ...]
    consumers: tuple[str, ...]
    coupled_by: tuple[str, ...]
    params: float
    macs: float
    reason: str = ""
    node: str = ""
    source: str = ""

    @property
    def prunable(self) -> bool:
        return not self.reason


def rows(coupling: Coupling) -> list[Row]:
    """One row per group, in the order of execution."""
    widths = coupling.widths
    params, macs = (_shares(count, widths) for count in (coupling.costs.params, coupling.costs.macs))
    return [_row(group, float(p), float(m))
            for group, p, m in zip(coupling.groups.values(), params, macs, strict=True)]


def _row(group: CouplingGroup, params: float, macs: float) -> Row:
    frozen = group.frozen
    # A parameter dimension that both makes and reads (tied weights) is listed where it makes.
    return Row(group.name, group.size, _layers(group.voters), _layers(group.consumers), group.operators, params, macs,
               *((frozen.why, frozen.node, frozen.source) if frozen else ()))


def _layers(members: tuple[Member, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m.layer for m in members))


def _shares(count: Count, widths: np.ndarray) -> np.ndarray:
    """For every group, the share of the count that goes with it."""
    total = count(widths)
    left = np.empty(len(widths))
    for g in range(len(widths)):
        without = widths.copy()
        without[g] = 0
        left[g] = count(without)
    return (total - left) / total if total else np.zeros(len(widths))


def inputs_in_words(inputs: Inputs) -> str:
    """The example inputs, and where they came from.

    >>> inputs_in_words(Inputs((TensorSpec((1, 3, 8, 8), "float32"),), {}, "shape (1, 3, 8, 8) from image_size = 8"))
    'float32 [1, 3, 8, 8], inferred: shape (1, 3, 8, 8) from image_size = 8'
    """
    words = [_spec(item) for item in inputs.args] + [f"{name}={_spec(item)}" for name, item in inputs.kwargs.items()]
    return ", ".join(words) + (f", inferred: {inputs.inferred}" if inputs.inferred else "")


def _spec(item: object) -> str:
    if isinstance(item, TensorSpec):
        return f"{item.dtype} {list(item.shape)}"
    if isinstance(item, (list, tuple)):
        return f"({', '.join(map(_spec, item))})"
    if isinstance(item, dict):
        return f"{{{', '.join(f'{key}: {_spec(value)}' for key, value in item.items())}}}"
    return repr(item)
