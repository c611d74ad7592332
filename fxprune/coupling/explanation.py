"""Why are two layers coupled? The chain of operators between them, exact to the channel.

One channel that both layers share stands for all: its units are the nodes of a small graph, every pair of them that an
operator tied is an edge, and the shortest path is the answer.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from fxprune.coupling.runs import Runs
from fxprune.coupling.source_lines import at
from fxprune.errors import InputError, printable, unknown
from fxprune.ir.evidence import Evidence, Slot
from fxprune.ir.groups import CARRIER, CONSUMER, PRODUCER

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

_VERB = {PRODUCER: "produces", CONSUMER: "reads", CARRIER: "holds"}
# What a layer puts out comes first: it is what people mean by the layer's channels.
_RANK = {PRODUCER: 0, CARRIER: 1, CONSUMER: 2}


def explain(coupling: "Coupling", a: str, b: str) -> str:
    """Why layers ``a`` and ``b`` are coupled, or that nothing couples them.

    Args:
        coupling: the analysis of a model.
        a, b: names of layers (``"layer1.0.conv2"``) or of parameters (``"layer1.0.conv2.weight"``).

    Raises:
        InputError: no layer has such a name.

    >>> import torch
    >>> from torch import nn
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    >>> print(explain(analyze(net, torch.randn(1, 3, 8, 8)), "0", "1"))  # doctest: +ELLIPSIS
    0 produces the channels that 1 holds: all 8 of group '0'
        0.weight[0]
          batch_norm  _1...
        1.weight[0]
    """
    roles = _roles(coupling)
    ours, theirs = (_slots(coupling, roles, name) for name in (a, b))
    same, differ = set(ours) & set(theirs), a != b
    a, b = printable(a), printable(b)
    if not differ:
        return f"{a} is one layer"
    if same:
        return f"{a} and {b} share the parameter {printable(min(same)[0])}, and so its channels"
    for s, t, shared in _sharing(coupling, ours, theirs, roles):
        head = _headline(coupling, (a, s), (b, t), roles, shared)
        return "\n".join([head, *_chain(coupling.evidence, s, t, int(shared[0]))])
    return _apart(coupling, (a, ours), (b, theirs))


def coupled(coupling: "Coupling", a: str, b: str) -> bool:
    """Whether two layers, or parameters, have a channel in common.

    Raises:
        InputError: no layer has such a name.
    """
    roles = _roles(coupling)
    ours, theirs = (_slots(coupling, roles, name) for name in (a, b))
    return bool(set(ours) & set(theirs)) or any(True for _ in _sharing(coupling, ours, theirs, roles))


def _roles(coupling: "Coupling") -> dict[Slot, str]:
    return {(m.name, m.dim): m.role for g in coupling.groups.values() for m in g.members}


def _sharing(coupling: "Coupling", ours: list[Slot], theirs: list[Slot], roles: dict[Slot, str]
             ) -> Iterator[tuple[Slot, Slot, np.ndarray]]:
    """Pairs of dimensions that have channels in common, and these; producers first."""
    slots, channel = coupling.evidence.slots, coupling.evidence.channel
    for s, t in sorted(((s, t) for s in ours for t in theirs),
                       key=lambda pair: sum(_RANK[roles.get(slot, CARRIER)] for slot in pair)):
        shared = np.intersect1d(channel[slots[s]], channel[slots[t]])
        if len(shared):
            yield s, t, shared


def _slots(coupling: "Coupling", roles: dict[Slot, str], name: str) -> list[Slot]:
    """The dimensions of the parameters of a layer, or of one parameter; shared ones under any of their names."""
    evidence = coupling.evidence
    names = {n: n for n, _ in evidence.slots}
    names |= {alias: first for first, every in evidence.shared.items() for alias in every if first in names}
    layers: dict[str, set[str]] = {}
    for alias, first in names.items():
        for key in (alias, alias.rpartition(".")[0] or alias):
            layers.setdefault(key, set()).add(first)
    if name not in layers:
        unused = [n for n in coupling.unused if n == name or n.startswith(f"{name}.")] if isinstance(name, str) else []
        if unused:
            raise InputError(f"layer {name!r} takes no part in the captured run, so that nothing is known of it; "
                             "give example_inputs that reach it")
        raise InputError(unknown("layer", name, {alias.rpartition(".")[0] or alias for alias in names}))
    found = [slot for slot in evidence.slots if slot[0] in layers[name]]
    return [slot for slot in found if slot in roles] or found


def _headline(coupling: "Coupling", a: tuple[str, Slot], b: tuple[str, Slot], roles: dict[Slot, str],
              shared: np.ndarray) -> str:
    (one, s), (two, t) = a, b
    first, second = roles.get(s, CARRIER), roles.get(t, CARRIER)
    if first == second:
        words = f"{one} and {two} are coupled: both {_VERB[first].removesuffix('s')}"
    elif _RANK[first] > _RANK[second]:
        words = f"{two} {_VERB[second]} the channels that {one} {_VERB[first]}:"
    else:
        words = f"{one} {_VERB[first]} the channels that {two} {_VERB[second]}:"
    owners = coupling.evidence.group[shared]
    counts = np.bincount(owners[owners >= 0], minlength=len(coupling.groups))
    parts = [f"{'all ' if n == group.size else ''}{n} of group {group.name!r}"
             + (f" (frozen: {printable(group.frozen.why)})" if group.frozen else "")
             for group, n in zip(coupling.groups.values(), counts.tolist(), strict=True) if n]
    return f"{words} {', '.join(parts[:4])}{', …' if len(parts) > 4 else ''}" if parts else \
        f"{words} {len(shared)} indices that nothing produces"


def _chain(evidence: Evidence, s: Slot, t: Slot, channel: int) -> list[str]:
    """Parameter dimensions and operators in turn, along the shortest path between two members of one channel."""
    runs = Runs.of(evidence)
    ties = nx.Graph()
    for index, a, b in evidence.joined:
        free = (a >= 0) & (b >= 0)
        here = np.flatnonzero(free)[evidence.channel[a[free]] == channel]
        ties.add_edges_from((u, v, {"call": index}) for u, v in zip(a[here].tolist(), b[here].tolist(), strict=True)
                            if u != v and not ties.has_edge(u, v))
    ends = [[u for u in evidence.slots[slot].tolist() if evidence.channel[u] == channel] for slot in (s, t)]
    ties.add_edges_from((("end", k), u, {"call": None}) for k, units in enumerate(ends) for u in units)
    path = nx.shortest_path(ties, ("end", 0), ("end", 1))[1:-1]
    lines = [_slot(runs.names[int(runs.place(path[0]))])]
    for u, v in zip(path, path[1:], strict=False):
        call = evidence.calls[ties.edges[u, v]["call"]]
        lines.append(f"  {call.op.partition('::')[2]}  {at(call.node, call.source)}".rstrip())
        lines.append(_slot(runs.names[int(runs.place(v))]))
    return [f"    {line}" for line in lines]


def _slot(slot: Slot | str) -> str:
    return printable(slot if isinstance(slot, str) else f"{slot[0]}[{slot[1]}]")


def _apart(coupling: "Coupling", a: tuple[str, list[Slot]], b: tuple[str, list[Slot]]) -> str:
    """No channel is shared; perhaps a third layer reads both."""
    (one, ours), (two, theirs) = a, b
    words = f"nothing couples {one} and {two}: no channel of one is a channel of the other"
    sides = [[g for g in coupling.groups.values() if any((m.name, m.dim) in slots for m in g.members)]
             for slots in (ours, theirs)]
    for mine in sides[0]:
        for other in sides[1]:
            places = {(m.name, m.dim) for m in mine.members if m.role == CONSUMER}
            reader = next((m for m in other.members if (m.name, m.dim) in places), None)
            if reader is not None:
                return (f"{words}\n    {printable(reader.layer)} reads both, side by side: channels of {mine.name!r} "
                        f"and of {other.name!r} lie next to each other in {_slot((reader.name, reader.dim))}, and go "
                        "separately")
    return words
