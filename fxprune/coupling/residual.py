"""Which residual branches may go: f in t + f(t), of which nothing else is used.

A branch is found at its sum: an addition without broadcasting, of which one operand is a tensor t (or the same tensor
laid out anew) and the other is computed from t. What goes with it is what nothing but that operand needs. It is a
branch only if

- everything between t and the sum goes: where an inner value is used elsewhere (a cache of keys, a bias that other
  layers share), dropping the sum would not drop the computation;
- a contraction goes with it, and a parameter that nobody else reads: `x + 0.04 * x ** 3` is no branch;
- it writes into nothing that outlives it, and casts nothing behind its last layer.

A shortcut with a projection is no identity: there, neither operand is computed from the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from fxprune.capture.capturing import GRAPH, Captured
from fxprune.capture.contexts import enter_autocast
from fxprune.capture.traced import Traced
from fxprune.ir.branches import Branch, Dropped
from fxprune.ir.evidence import Evidence
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.signature import Signature
from fxprune.ir.tape import Call, Ref, refs, writes

ADDITIONS = {"aten::add", "aten::add_"}
# Operators that give what they are given.
SAME = {"aten::alias", "aten::clone", "aten::contiguous"}
CASTS = {"aten::to", "aten::_to_copy", "aten::type_as"}


@dataclass(frozen=True)
class _Found:
    """A branch in one graph: its `Dropped`, the tensors that only it reads, those at its end, and what it puts out."""

    dropped: Dropped
    tensors: frozenset[str]
    ends: tuple[str, ...]
    out: Ref


def residual_branches(captured: Captured, evidence: Evidence, groups: Sequence[CouplingGroup], signature: Signature
                      ) -> dict[str, Branch]:
    """The branches that may go, by name, in the order of execution; none where there is no graph, or where layers
    compute in several dtypes."""
    shapes = {name: shape for name, shape, _ in signature.entries}
    dtypes = {dtype for _, shape, dtype in signature.entries if len(shape) > 1 and "float" in dtype}
    if captured.mode != GRAPH or len(dtypes) > 1 or any(_casting(traced) for traced in captured.traced):
        return {}
    graphs, start = [], 0
    for traced in captured.traced:
        graphs.append({_key(found, shapes): found for found in _Graph(traced, evidence, start, tuple(shapes)).found()})
        start += len(traced.tape.calls)
    branches: dict[str, Branch] = {}
    for key, first in graphs[0].items():
        everywhere = [graph[key] for graph in graphs if key in graph]
        if key and len(everywhere) == len(graphs):
            name = _name(first.tensors, sorted(key, key=tuple(shapes).index), shapes)
            name = next(n for n in (name, *(f"{name}#{k}" for k in range(2, len(branches) + 3))) if n not in branches)
            branches[name] = _branch(name, everywhere, evidence, groups, shapes)
    return branches


def _casting(traced: Traced) -> bool:
    """Whether operators choose their precision somewhere."""
    return any(node.target is enter_autocast and node.args[2] is not False for node in traced.graph.nodes)


def _key(found: _Found, shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """What tells a branch in every graph: its weights."""
    return frozenset(name for name in found.tensors if len(shapes.get(name, ())) > 1)


def _branch(name: str, everywhere: list[_Found], evidence: Evidence, groups: Sequence[CouplingGroup],
            shapes: Mapping[str, tuple[int, ...]]) -> Branch:
    first = everywhere[0]
    gone = frozenset.intersection(*(found.tensors for found in everywhere))
    tensors = {alias for tensor in gone for alias in evidence.shared.get(tensor, (tensor,))}
    owners = np.concatenate([np.zeros(0, np.int64), *map(evidence.owners, evidence.dims[0].get(first.out.id, ()))])
    stream = tuple(groups[place].name for place in np.unique(owners[owners >= 0]).tolist())
    return Branch(name, tuple(n for n in shapes if n in tensors), first.ends, stream,
                  tuple(found.dropped for found in everywhere))


def _name(tensors: frozenset[str], weights: list[str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The innermost module around all of its weights, where that holds no others; else the first weight's.

    >>> shapes = dict.fromkeys(("a.0.weight", "a.1.weight", "b.weight"), (1, 1))
    >>> _name(frozenset({"a.0.weight", "a.1.weight"}), ["a.0.weight", "a.1.weight"], shapes)
    'a'
    >>> _name(frozenset({"a.1.weight"}), ["a.1.weight"], shapes)
    'a.1'
    """
    paths = [weight.split(".")[:-1] for weight in weights]
    shared = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    around = ".".join(paths[0][:next((k for k, part in enumerate(shared) if paths[0][k] != part), len(shared))])
    if around and all(name in tensors for name in shapes if name.startswith(f"{around}.") and len(shapes[name]) > 1):
        return around
    return ".".join(paths[0]) or weights[0]


def _written(call: Call) -> set[int]:
    """The tensors that a call writes into; an operator of PyTorch that is no such one may give what it is given."""
    plain = call.op.startswith("aten::") and not call.op.endswith("_") and "out" not in call.overload
    return set() if plain else writes(call)


class _Graph:
    """One graph and its tape, as branches see them."""

    def __init__(self, traced: Traced, evidence: Evidence, start: int, names: tuple[str, ...]):
        self.tape, self.nodes, self.names = traced.tape, list(traced.graph.nodes), names
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self.calls: dict[str, list[Call]] = {}
        self.contracts = {id(call) for number, call in enumerate(self.tape.calls, start)
                          if number in evidence.contractions}
        self.readers: dict[str, set[str]] = {}
        self.shared_memory: dict[int | None, list[Node]] = {}
        for call in self.tape.calls:
            self.calls.setdefault(call.node, []).append(call)
            for name in self._params(call):
                self.readers.setdefault(name, set()).add(call.node)
        for node in self.nodes:
            for ref in self.tape.nodes.get(node.name, {}).values():
                self.shared_memory.setdefault(self.tape.storages.get(ref.id), []).append(node)

    def found(self) -> Iterator[_Found]:
        for node in self.nodes:
            for operand in self._candidates(node):
                found = self._at(node, operand)
                if found is not None:
                    yield found

    def _candidates(self, node: Node) -> list[int]:
        """The operands of a sum that are computed later than what they are added to."""
        calls = self.calls.get(node.name, [])
        if len(calls) != 1 or calls[0].op not in ADDITIONS or len(node.all_input_nodes) != 2:
            return []
        call, (out, *_) = calls[0], [*refs(calls[0].outs), None]
        operands = [arg for arg in call.args[:2] if isinstance(arg, Ref)]
        if len(operands) != 2 or out is None or any(ref.shape != out.shape for ref in operands):
            return []
        if [ref.id for ref in operands] != [self._ref(arg) for arg in self._inputs(node)]:
            return []
        if call.kwargs.get("alpha", 1) != 1 or len(call.args) > 2:
            return []
        places = [self.place[self._origin(arg)] for arg in self._inputs(node)]
        return [] if places[0] == places[1] else [int(np.argmax(places))]

    def _inputs(self, node: Node) -> list[Node]:
        """Its operands, in the operator's order."""
        given = [*node.args, *node.kwargs.values()]
        return [arg for arg in given if isinstance(arg, Node)]

    def _ref(self, node: Node) -> int | None:
        ref = self.tape.nodes.get(node.name, {}).get(())
        return None if ref is None else ref.id

    def _origin(self, node: Node) -> Node:
        """The node whose value this one hands on as it is."""
        return self._handed_on(node)[-1]

    def _handed_on(self, node: Node) -> list[Node]:
        """The way of a value back to where it was made, through what gives it as it is."""
        way = [node]
        while len(node.all_input_nodes) == 1:
            calls, source = self.calls.get(node.name, []), node.all_input_nodes[0]
            itself = self._ref(node) is not None and self._ref(node) == self._ref(source)
            if any(map(_written, calls)) or not itself and not (calls and all(call.op in SAME for call in calls)):
                break
            node = source
            way.append(node)
        return way

    def _at(self, node: Node, operand: int) -> _Found | None:
        """The branch that is added at this node, or None."""
        branch, shortcut = (self._inputs(node)[k] for k in (operand, 1 - operand))
        way = self._handed_on(shortcut)
        start, gone = way[-1], self._only_for(branch, node, way)
        names = {n.name for n in gone}
        calls = [call for n in gone for call in self.calls.get(n.name, [])]
        if not gone or not any(id(call) in self.contracts for call in calls):
            return None
        tensors = self._own(gone, calls, names)
        if not self._reads_only(gone, start) or not self._leaves_no_trace(calls, gone, node, tensors):
            return None
        out = self.tape.nodes[branch.name][()]
        ends = self._ends(out, [call for call in self.tape.calls if call.node in names])
        if ends is None:
            return None
        return _Found(Dropped(node.name, operand, frozenset(names)), tensors,
                      tuple(name for name in ends if name in tensors), out)

    def _only_for(self, branch: Node, sum_: Node, shortcut: list[Node]) -> set[Node]:
        """What nothing but the sum needs, from the branch back to what its shortcut carries."""
        gone: set[Node] = set()
        pending = [branch]
        while pending:
            node = pending.pop()
            if node in gone or node.op == "placeholder" or node in shortcut:
                continue
            if not all(user in gone or user is sum_ for user in node.users):
                continue
            gone.add(node)
            pending += node.all_input_nodes
        return gone

    def _own(self, gone: set[Node], calls: list[Call], names: set[str]) -> frozenset[str]:
        """The parameters and buffers that nothing else reads."""
        read = {name for call in calls for name in self._params(call)}
        targets = tuple(f"{node.target}." for node in gone if node.op == "call_module")
        held = {name for name in self.names if name.startswith(targets)} if targets else set()
        return frozenset(name for name in read | held if self.readers.get(name, set()) <= names)

    def _params(self, call: Call) -> list[str]:
        return [self.tape.params[ref.id] for ref in refs((call.args, call.kwargs)) if ref.id in self.tape.params]

    def _reads_only(self, gone: set[Node], start: Node) -> bool:
        """It reads t, and of what is computed from t nothing else."""
        entries = {source for node in gone for source in node.all_input_nodes} - gone
        others = {entry for entry in entries if self._origin(entry) is not start}
        return len(others) < len(entries) and not any(self._follows(entry, start) for entry in others)

    def _follows(self, node: Node, start: Node) -> bool:
        """Whether a value, and not only its size or dtype, is computed from that of ``start``."""
        seen, pending = set(), [node]
        while pending:
            node = pending.pop()
            if node is start:
                return True
            if node in seen or self.place[node] < self.place[start] or not self.tape.nodes.get(node.name):
                continue
            seen.add(node)
            pending += node.all_input_nodes
        return False

    def _leaves_no_trace(self, calls: list[Call], gone: set[Node], sum_: Node, tensors: frozenset[str]) -> bool:
        """What it writes into is its own."""
        for number in {number for call in calls for number in _written(call)}:
            if number in self.tape.params:
                if self.tape.params[number] not in tensors:
                    return False
                continue
            before = [node for node in self.shared_memory.get(self.tape.storages.get(number), [])
                      if self.place[node] < self.place[sum_]]
            if number in self.tape.inputs or number in self.tape.constants or not gone.issuperset(before):
                return False
        return True

    def _ends(self, out: Ref, calls: list[Call]) -> list[str] | None:
        """The tensors of the last layer and of what is done to its result; None where that is cast."""
        wanted, ends = {out.id}, []
        for call in reversed(calls):
            if not wanted & {ref.id for ref in refs(call.outs)}:
                continue
            if call.op in CASTS and not writes(call):
                return None
            ends += self._params(call)
            if id(call) not in self.contracts:
                wanted |= {ref.id for ref in refs((call.args, call.kwargs))}
        return list(dict.fromkeys(reversed(ends)))
