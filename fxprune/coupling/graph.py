"""The coupling as a graph that people and programs can walk.

Nodes are of three kinds, told apart by their attribute ``kind``:

==============  ===========================  ==========================================================================
kind            node                         attributes
==============  ===========================  ==========================================================================
``parameter``   ``("conv1.weight", 0)``      ``layer``, ``role`` (producer, consumer, carrier), ``groups`` (names, in
                                             order), ``size``: one dimension of one parameter or buffer
``operator``    ``"aten::add#17"``           ``op``, ``node`` (of the fx graph; in module mode the module's path),
                                             ``source`` (``file:line``): one call that ties
``constant``    ``"constant#3:640"``         as an operator: a dimension of a tensor that a call made from nothing
==============  ===========================  ==========================================================================

An edge joins an operator with every parameter dimension whose units occur in what it tied. Dimensions that nothing ties
and that belong to no group (kernel positions) are left out. Connected components are the *coarse* groups: a
concatenation ties the reader's one dimension with several producers, so that their groups lie in one component although
no channel of one is a channel of the other. `CouplingGroup` and `explain` are exact; the graph shows the neighbourhood.
"""

from typing import TYPE_CHECKING

import networkx as nx

from fxprune.coupling.runs import Runs, constant
from fxprune.ir.evidence import Evidence, Slot
from fxprune.ir.groups import CARRIER

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def graph(coupling: "Coupling") -> nx.Graph:
    """Parameter dimensions and the operators that tie them; built anew at each call.

    >>> import torch, fxprune
    >>> from torch import nn
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    >>> made = graph(analyze(net, torch.randn(1, 3, 8, 8)))
    >>> made.nodes["0.weight", 0]["role"], made.nodes["0.weight", 0]["groups"]
    ('producer', ('0',))
    >>> nx.shortest_path(made, ("0.weight", 0), ("2.weight", 1))
    [('0.weight', 0), 'aten::conv2d#2', ('2.weight', 1)]
    """
    evidence = coupling.evidence
    runs = Runs.of(evidence)
    made = nx.Graph()
    for index, places in _operators(evidence, runs):
        call = evidence.calls[index]
        name = f"{call.op}#{index}"
        name = name if name not in made else f"{name}.{len(made)}"
        made.add_node(name, kind="operator", op=call.op, node=call.node, source=call.source)
        made.add_edges_from((name, runs.names[place]) for place in places)
    roles = {(m.name, m.dim): m.role for g in coupling.groups.values() for m in g.members}
    owners: dict[Slot, list[str]] = {slot: [] for slot in roles}
    for name, group in coupling.groups.items():
        for member in group.members:
            owners[member.name, member.dim].append(name)
    made.add_nodes_from(roles)
    for slot in [node for node in made if isinstance(node, tuple)]:
        layer = slot[0].rpartition(".")[0] or slot[0]
        made.add_node(slot, kind="parameter", layer=layer, role=roles.get(slot, CARRIER),
                      groups=tuple(owners.get(slot, ())), size=len(evidence.slots[slot]))
    for index, vector in evidence.fresh:
        call, name = evidence.calls[index], constant(index, vector)
        if name in made:
            made.add_node(name, kind="constant", op=call.op, node=call.node, source=call.source)
    return made


def _operators(evidence: Evidence, runs: Runs) -> list[tuple[int, frozenset[int]]]:
    """Calls that tie at least two runs, with these; what the training graph repeats is met once.

    A call that ties several dimensions (a linear layer: input with weight, weight with bias) stands once for each set
    of runs that hang together, or it would join its input's channels with its output's.
    """
    known: dict[int, frozenset[int]] = {}
    joined: dict[int, list[frozenset[int]]] = {}
    for index, *vectors in evidence.joined:
        for vector in vectors:
            if id(vector) not in known:
                known[id(vector)] = runs.within(vector)
        tied = known[id(vectors[0])] | known[id(vectors[1])]
        sets = joined.setdefault(index, [])
        apart = [other for other in sets if not other & tied]
        sets[:] = [*apart, tied.union(*(other for other in sets if other & tied))]
    first: dict[tuple[str, str, frozenset[int]], int] = {}
    for index, sets in joined.items():
        for places in sets:
            if len(places) > 1:
                first.setdefault((evidence.calls[index].op, evidence.calls[index].node, places), index)
    return [(index, places) for (_, _, places), index in first.items()]
