"""Layers that a model skips at random while it trains: LayerDrop (Fan, Grave and Joulin, *Reducing Transformer Depth on
Demand with Structured Dropout*, ICLR 2020, arXiv:1909.11556), stochastic depth.

``if torch.rand([]) < p: continue`` is Python that decides by a number that was drawn. It is traced with every layer,
and once more for each decision with that one turned round. Where the second graph is the first without one block of
calls, whose results other values from before take the place of, the block always runs, and a ``where`` on the drawn
number chooses between the two. A block that leaves something behind, as running statistics do, cannot be chosen so.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from fxprune.capture.dispatch import operator_name
from fxprune.capture.laws import value
from fxprune.capture.outline import Lengths
from fxprune.capture.pytrees import tree_map_only
from fxprune.capture.traced import Traced
from fxprune.errors import CaptureError
from fxprune.ir.tape import Call, Ref, refs, writes
from fxprune.ir.trees import leaves, mapped

# What is drawn, while decisions are looked for and in verification.
MIDDLE = 0.5
UNIFORM = {"aten::rand", "aten::rand_like", "aten::uniform_", "aten::uniform"}
# Of one model; each is one more capture.
LIMIT = 100


@dataclass(frozen=True)
class Decision:
    """What Python has asked of a drawn number: the number of the tensor on the tape, how many calls stood in the graph
    then, the answer, and where."""

    tensor: int
    calls: int
    answer: bool
    source: str


class Draws:
    """What numbers that are drawn would be, and what is decided by them.

    Args:
        turned: the number of the decision that is turned round.
    """

    def __init__(self, turned: int | None = None):
        self.turned = turned
        self.decisions: list[Decision] = []
        self.here: Callable[[], int] = lambda: 0
        self._held: dict[int, torch.Tensor] = {}

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any, observer: Any) -> None:
        """An operator has run on nothing but what is known or drawn."""
        if operator_name(func) in UNIFORM:
            self._held[observer.ref(out).id] = torch.full(out.shape, MIDDLE, dtype=out.dtype)
            return
        tensors = leaves((args, kwargs), torch.Tensor)
        values = {id(t): self._held.get(observer.ref(t).id, observer.known(t)) for t in tensors}
        if isinstance(out, torch.Tensor) and tensors and all(v is not None for v in values.values()):
            args, kwargs = tree_map_only(torch.Tensor, lambda t: values[id(t)], (args, kwargs))
            self._held[observer.ref(out).id] = func(*args, **kwargs)

    def decides(self, number: int, source: str) -> bool | None:
        """The answer that the tensor of that number on the tape holds; None where that is not known, or no decision."""
        held = self._held.get(number)
        if held is None or held.dtype is not torch.bool or len(self.decisions) == LIMIT:
            return None
        answer = bool(held) != (len(self.decisions) == self.turned)
        self.decisions.append(Decision(number, self.here(), answer, source))
        return answer


@dataclass(frozen=True)
class Choice:
    """A block of calls of a graph, by their numbers, that a decision chooses.

    Args:
        calls: from which one to before which one.
        pairs: the calls whose results later ones read, and those that are read in their place where it is skipped.
    """

    decision: int
    calls: tuple[int, int]
    pairs: tuple[tuple[int, int], ...]


def calls_of(traced: Traced) -> list[Node]:
    """The calls of a graph, without its reads and sizes, which stand wherever they were first used."""
    return [node for node in traced.graph.nodes if is_call(node)]


def is_call(node: Node) -> bool:
    return node.op.startswith("call_") and "size" not in node.meta


def choice(whole: Traced, decisions: list[Decision], number: int, turned: Traced) -> Choice:
    """How the graph with a decision turned round is the whole one without a block.

    Raises:
        CaptureError: it is not.
    """
    ours, theirs = calls_of(whole), calls_of(turned)
    start, missing = decisions[number].calls, len(ours) - len(theirs)
    refused = CaptureError(f"the model decides in Python by a number that it draws ({decisions[number].source}), as "
                           "LayerDrop does, and what runs then is not the rest of the graph; set its probability to 0 "
                           "before compressing")
    if missing < 0 or start + missing > len(ours):
        raise refused
    pairing = _Pairing(whole, turned, ours, theirs, start, missing)
    if not pairing.same():
        raise refused
    return Choice(number, (start, start + missing), tuple(sorted(pairing.pairs.items())))


class _Pairing:
    """Holds two graphs against each other, the second without a block."""

    def __init__(self, whole: Traced, turned: Traced, ours: list[Node], theirs: list[Node], start: int, missing: int):
        self.whole, self.turned, self.ours, self.theirs = whole, turned, ours, theirs
        self.start, self.missing = start, missing
        self.places = {node: k for k, node in enumerate(ours)}
        self.other = {node: k for k, node in enumerate(theirs)}
        self.lengths = Lengths(whole), Lengths(turned)
        self.pairs: dict[int, int] = {}

    def same(self) -> bool:
        """Whether they are the same but for that."""
        rest = self.ours[:self.start] + self.ours[self.start + self.missing:]
        outputs = (next(iter(reversed(traced.graph.nodes))) for traced in (self.whole, self.turned))
        return all(a.op == b.op and self._alike(a.target, b.target)
                   and self._equal((a.args, a.kwargs), (b.args, b.kwargs))
                   for a, b in (*zip(rest, self.theirs, strict=True), tuple(outputs)))

    def _alike(self, a: Any, b: Any) -> bool:
        added, other = self.whole.added.get(str(a)), self.turned.added.get(str(b))
        return a == b if added is None or other is None else getattr(added, "key", a) == getattr(other, "key", b)

    def _equal(self, a: Any, b: Any) -> bool:
        if isinstance(a, Node) or isinstance(b, Node):
            return self._nodes(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return list(a) == list(b) and all(self._equal(a[key], b[key]) for key in a)
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            return len(a) == len(b) and all(map(self._equal, a, b))
        if isinstance(a, slice) and isinstance(b, slice):
            return self._equal((a.start, a.stop, a.step), (b.start, b.stop, b.step))
        return type(a) is type(b) and a == b

    def _nodes(self, a: Any, b: Any) -> bool:
        if a in self.places and b in self.other:
            return self._calls(self.places[a], self.other[b])
        sizes = [value(lengths.named(node.meta["size"]), lengths) if isinstance(node, Node) and "size" in node.meta
                 else node for node, lengths in zip((a, b), self.lengths, strict=True)]
        if not any(isinstance(size, Node) for size in sizes):
            return bool(sizes[0] == sizes[1])
        if not isinstance(a, Node) or not isinstance(b, Node) or a.op != b.op:
            return False
        if a.target in self.whole.constants and b.target in self.turned.constants:
            return torch.equal(self.whole.constants[a.target], self.turned.constants[b.target])
        return a.target == b.target

    def _calls(self, ours: int, theirs: int) -> bool:
        if ours < self.start:
            return ours == theirs
        if ours >= self.start + self.missing:
            return ours - self.missing == theirs
        return theirs < self.start and self.pairs.setdefault(ours, theirs) == theirs


def joined(whole: Traced, decisions: list[Decision], choices: list[Choice]) -> Traced:
    """The whole graph, in which drawn numbers choose.

    Raises:
        CaptureError: a block leaves something behind.
    """
    calls = calls_of(whole)
    taken: dict[Node, Node] = {}
    skipped: set[str] = set()
    for each in choices:
        block = calls[slice(*each.calls)]
        if not block:
            continue  # whatever was drawn, the same runs
        names = {node.name for node in block}
        _check(whole, names, decisions[each.decision])
        skipped |= names
        for ours, theirs in each.pairs:
            instead = taken.get(calls[theirs], calls[theirs])
            taken[calls[ours]] = _chosen(whole, decisions[each.decision], calls[ours], instead, block[-1])
    choosing = frozenset(node.name for node in taken.values())
    return replace(whole, skipped=frozenset(skipped), choosing=choosing)


def _given(calls: list[Call]) -> list[Ref]:
    """What calls read and have not made."""
    made: set[int] = set()
    given = []
    for call in calls:
        given += [ref for ref in refs((call.args, call.kwargs)) if ref.id not in made]
        made |= {ref.id for ref in refs(call.outs)}
    return given


def _check(whole: Traced, names: set[str], decision: Decision) -> None:
    calls, storages = [call for call in whole.tape.calls if call.node in names], whole.tape.storages
    given = {storages[ref.id] for ref in _given(calls)}
    if given & {storages[number] for call in calls for number in writes(call)} or any(
            _counts(call, whole) for call in calls):
        raise CaptureError(f"the model decides in Python by a number that it draws ({decision.source}), as LayerDrop "
                           "does, whether something is written into, as running statistics are, and a graph takes one "
                           "way; set its probability to 0 before compressing")


def _counts(call: Call, whole: Traced) -> bool:
    """Whether an operator changes what it is given although its schema does not say so."""
    return call.op in ("aten::batch_norm", "aten::instance_norm") and any(
        whole.tape.params.get(ref.id, "").endswith(("running_mean", "running_var")) for ref in refs(call.args))


def _chosen(whole: Traced, decision: Decision, ours: Node, theirs: Node, last: Node) -> Node:
    """A node, and a call on the tape, that is the one where the answer is the captured one, and the other else."""
    tape = whole.tape
    asking = next(node for node in whole.graph.nodes for ref in tape.nodes.get(node.name, {}).values()
                  if ref.id == decision.tensor)
    asked, kept, other = (_ref(whole, node) for node in (asking, ours, theirs))
    if kept.shape != other.shape:
        raise CaptureError(f"a layer that is skipped at random ({decision.source}) must give as much as it is given")
    readers = _after(whole, last)
    with whole.graph.inserting_after(last):
        pair = (ours, theirs) if decision.answer else (theirs, ours)
        node = whole.graph.call_function(torch.where, (asking, *pair))
    node.meta["source"] = decision.source
    new = Ref(max(tape.storages) + 1, kept.shape)
    tape.storages[new.id] = max(tape.storages.values()) + 1
    tape.nodes[node.name] = {(): new}
    ours.replace_all_uses_with(node, delete_user_cb=lambda user: user in readers)
    tape.outputs[:] = [new.id if number == kept.id else number for number in tape.outputs]
    names = {reader.name for reader in readers}
    first = next((k for k, call in enumerate(tape.calls) if call.node in names), len(tape.calls))
    for k in range(first, len(tape.calls)):
        call = tape.calls[k]
        args, kwargs = mapped((call.args, call.kwargs), lambda ref: new if ref.id == kept.id else ref, Ref)
        tape.calls[k] = replace(call, args=args, kwargs=kwargs)
    refs_of = (kept, other) if decision.answer else (other, kept)
    tape.calls.insert(first, Call("aten::where", "self", (asked, *refs_of), {}, new, node.name, decision.source))
    return node


def _after(whole: Traced, last: Node) -> set[Node]:
    nodes = list(whole.graph.nodes)
    return set(nodes[nodes.index(last) + 1:])


def _ref(whole: Traced, node: Node) -> Ref:
    given: Ref | None = whole.tape.nodes.get(node.name, {}).get(())
    if given is None:
        raise CaptureError("a layer that is skipped at random must give a tensor")
    return given
