"""The network as it is drawn: layers and the operators where branches meet, everything in between left out.

It is read off the tape, so that models of which there is no graph are drawn as well. An operator with one input and
without a matrix of its own (a batch norm, an activation, a reshape) stands in nobody's way: its output counts as its
input's, and it appears among the members of its group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fxprune.coupling.coupling import Coupling
from fxprune.ir.evidence import Evidence
from fxprune.ir.tape import Call, refs

LAYER, OPERATOR, INPUT, OUTPUT, FOLD = "layer", "operator", "input", "output", "fold"


@dataclass(frozen=True)
class Box:
    """One drawn node.

    Args:
        kind: ``"layer"``, ``"operator"``, ``"input"``, ``"output"`` or ``"fold"``, which stands for repeated blocks.
        name: the layer's, or the operator's.
        makes, reads: places, in the coupling's order, of the groups whose channels leave and enter it.
        before, after: its width, and that under the plan; 0 where no group owns any of it.
        node, source: where it stands in the graph and in the user's file.
        holds: names of the layers that a fold stands for.
    """

    kind: str
    name: str
    makes: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    before: int = 0
    after: int = 0
    node: str = ""
    source: str = ""
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """Boxes in the order of execution, and edges between their places."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def drawing(coupling: Coupling, kept: Mapping[str, Any]) -> Drawing:
    """Draw the evaluation run.

    Args:
        coupling: the analysis of a model.
        kept: kept channels by group name; empty where there is no plan.
    """
    return _Drawer(coupling.evidence, coupling.lost(kept)).draw()


class _Drawer:
    """Walks along the tape; ``made[tensor]`` is the box that a tensor comes from."""

    def __init__(self, evidence: Evidence, lost: np.ndarray):
        self.evidence, self.lost = evidence, lost
        self.tape, self.dims = evidence.tapes[0], evidence.dims[0]
        self.boxes: list[Box] = []
        self.edges: dict[tuple[int, int], None] = {}
        self.made: dict[int, int] = {}

    def draw(self) -> Drawing:
        for tensor, name in self.tape.inputs.items():
            self.made[tensor] = self._add(Box(INPUT, name), ())
        for call in self.tape.calls:
            self._call(call)
        ends = dict.fromkeys(self.made[tensor] for tensor in self.tape.outputs if tensor in self.made)
        self._add(Box(OUTPUT, "output"), tuple(ends))
        return Drawing(tuple(self.boxes), tuple(self.edges))

    def _call(self, call: Call) -> None:
        arrivals = [ref for ref in refs((call.args, call.kwargs)) if ref.id in self.made]
        weights = [ref for ref in refs((call.args, call.kwargs)) if ref.id in self.tape.params and len(ref.shape) > 1]
        outs = list(refs(call.outs))
        origins = tuple(dict.fromkeys(self.made[ref.id] for ref in arrivals))
        if not weights and not origins:
            return
        if weights or len(origins) > 1:
            largest = max(weights, key=lambda ref: len(ref.shape), default=None)
            box = self._box(call, _layer(self.tape.params[largest.id]) if largest else "", arrivals, outs)
            origins = (self._add(box, origins),)
        self.made.update({ref.id: origins[0] for ref in outs})

    def _box(self, call: Call, layer: str, arrivals: list, outs: list) -> Box:
        vectors = [v for ref in outs for v in self.dims.get(ref.id, ())]
        carrying = next((v for v in vectors if self._owners([v])), np.zeros(0, np.int64))
        before = len(carrying)
        after = before - int(self.lost[self.evidence.channel[carrying[carrying >= 0]]].sum())
        op = call.op.partition("::")[2].rstrip("_")
        return Box(LAYER if layer else OPERATOR, layer or op, self._owners(vectors),
                   self._owners([v for ref in arrivals for v in self.dims.get(ref.id, ())]), before, after, call.node,
                   call.source)

    def _owners(self, vectors: list[np.ndarray]) -> tuple[int, ...]:
        """The groups that own indices of these dim vectors."""
        found = [self.evidence.owners(vector) for vector in vectors]
        owners = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        return tuple(owners[owners >= 0].tolist())

    def _add(self, box: Box, origins: tuple[int, ...]) -> int:
        self.boxes.append(box)
        self.edges.update(dict.fromkeys((origin, len(self.boxes) - 1) for origin in origins))
        return len(self.boxes) - 1


def _layer(parameter: str) -> str:
    """What people call the owner of a weight; plain parameters have a name of their own."""
    owner, _, leaf = parameter.rpartition(".")
    return owner if owner and "weight" in leaf else parameter
