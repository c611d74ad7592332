"""The list of groups beside the drawing: by their share of the MACs, groups of repeated blocks folded into one line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fxprune.coupling.coupling import Coupling
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.tape import Call, Ref, refs
from fxprune.report.numbers import percent
from fxprune.report.rows import Row

# Groups of one kind from which on they are folded.
LEAST = 3
_PRODUCTS = {"matmul", "bmm", "baddbmm", "einsum"}


@dataclass(frozen=True)
class Family:
    """Groups whose names differ in numbers only, and that have as many channels.

    Args:
        name: theirs, ``*`` for what differs; the group's own where it is alone.
        places: of the groups in the coupling, the largest share of the MACs first.
        share: of the MACs, in words.
    """

    name: str
    places: tuple[int, ...]
    share: str


def families(rows: Sequence[Row]) -> list[Family]:
    """All groups, the largest share of the MACs first; frozen ones last."""
    kinds: dict[tuple[str, int, bool], list[int]] = {}
    ranked = sorted(range(len(rows)), key=lambda k: (not rows[k].prunable, -rows[k].macs))
    for place in ranked:
        row = rows[place]
        kinds.setdefault((_kind(row.name), row.channels, row.prunable), []).append(place)
    found = [part for places in kinds.values() for part in
             ([places] if len(places) >= LEAST else [[place] for place in places])]
    order = {place: rank for rank, place in enumerate(ranked)}
    return [_family(rows, places) for places in sorted(found, key=lambda places: order[places[0]])]


def _family(rows: Sequence[Row], places: list[int]) -> Family:
    if len(places) == 1:
        return Family(rows[places[0]].name, tuple(places), percent(rows[places[0]].macs))
    most, least = percent(rows[places[0]].macs), percent(rows[places[-1]].macs)
    return Family(_pattern([rows[place].name for place in places]), tuple(places),
                  f"{most} each" if most == least else f"{least} to {most} each")


def _kind(name: str) -> str:
    """What groups in the same place of repeated blocks share: a layer's own name, and its block's but for numbers.

    >>> _kind("layer3.1.conv2"), _kind("998")
    ('layer*.*.conv2', '*')
    """
    block, dot, layer = name.rpartition(".")
    return f"{re.sub('[0-9]+', '*', block)}.{layer}" if dot else re.sub("[0-9]+", "*", layer)


def _pattern(names: list[str]) -> str:
    """The names' common form.

    >>> _pattern(["layer1.0.conv1", "layer1.1.conv1"])
    'layer1.*.conv1'
    """
    columns = list(zip(*(re.split(r"(\d+)", name) for name in names), strict=True))
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in columns)


def portions(coupling: Coupling) -> dict[str, str]:
    """For groups each of whose channels stands for several of its layer's: ``"of 576 (per head)"``."""
    lengths = {(name, dim): length for name, shape, _ in coupling.signature.entries for dim, length in enumerate(shape)}
    ways = _ways(coupling)
    return {name: f"of {lengths.get((voter.name, voter.dim), len(voter.index)):,} ({ways.get(name) or _each(group)})"
            for name, group in coupling.groups.items() for voter in group.voters[:1] if len(voter.index) > group.size}


def _each(group: CouplingGroup) -> str:
    return f"{len(group.voters[0].index) // group.size} each"


def _ways(coupling: Coupling) -> Mapping[str, str]:
    """Group name -> which splits its channels lie in: attention heads, or the groups of a convolution."""
    names = list(coupling.groups)
    found: dict[str, str] = {}
    for tape, dims in zip(coupling.evidence.tapes, coupling.evidence.dims, strict=True):
        for call in tape.calls:
            for ref, dim, words in _split(call, tape.params):
                vectors = dims.get(ref.id, ())
                owners = coupling.evidence.owners(vectors[dim]) if vectors else np.zeros(0, np.int64)
                found.update({names[g]: words for g in np.unique(owners[owners >= 0]).tolist()})
    return found


def _split(call: Call, params: Mapping[int, str]) -> Iterator[tuple[Ref, int, str]]:
    """The operands, and their dimensions, in which only a part of a layer's channels lies."""
    op, operands = call.op.partition("::")[2], list(refs((call.args, call.kwargs)))
    moving = [ref for ref in operands if ref.id not in params]
    if op == "scaled_dot_product_attention":
        yield from ((ref, -1, "per head") for ref in moving[:3])
    elif op in _PRODUCTS and len(moving) == len(operands) == 2:
        yield from ((ref, dim, "per head") for ref in moving for dim in (-1, -2) if len(ref.shape) > 2)
    elif op.startswith("conv") and len(operands) > 1 and len(operands[1].shape) > 2 and \
            operands[0].shape[1] != operands[1].shape[1] and len(operands[0].shape) == len(operands[1].shape):
        yield operands[0], 1, "per group"
