"""What a model's Python cannot do under a plan, and what must therefore hold.

A number that comes out otherwise than wanted is decided by some dimensions: those that its expression reads, that it is
the length of, or, where it is a mere value, the last one that arrives. Where two dimensions must keep in step for it to
come out right, they are tied: ``C // num_heads`` stays as it is as long as with every head as many channels go, and an
attribute that two calls read serves both where they shrink alike. Otherwise what decides is frozen.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from fxprune.capture.laws import value
from fxprune.capture.outline import Outline, Path
from fxprune.capture.retracing import Rerun
from fxprune.capture.sizes import Attribute, attributes_in, leaves
from fxprune.coupling.replay import InStep, Place
from fxprune.ir.tape import Ref, TensorDim
from fxprune.rewrite.attribute_values import put_in
from fxprune.rewrite.call_numbers import Calls, Wanted
from fxprune.rewrite.slicing import sliced

# What must be frozen or tied -> why.
Held = dict[Place, str]


class Raised(str):
    """A reason that is an error of the smaller copy."""


def predicted(calls: Calls, values: Mapping[Attribute, int]) -> tuple[Held, Held]:
    """Before anything runs: the numbers that no values of attributes bring about.

    Returns:
        What must be held for mere values, which comes first: with the size of a head, its scale stays; and what must
        be for the rest.
    """
    for_values: Held = {}
    held = _parts(calls)
    for name in filter(calls.valued.__contains__, calls.refused):
        for_values |= dict.fromkeys(_last(calls, _node(calls, str(name))), calls.refused[name])
    for call in calls.wanted:
        for path, number in call.numbers.items():
            expression = calls.expression(call, path)
            have = calls.origin.outline.numbers.get((call.position, path)) if expression is None else \
                _number(put_in(expression, calls.length), values)
            if have == number:
                continue
            last = _last(calls, call.node) if isinstance(number, float) else []
            for_values |= _frozen(call, _unlike(have, number), last) if last else {}
            held |= {} if last else _held(calls, call, path, have, number)
            break
    return for_values, held


def compared(calls: Calls, rerun: Rerun) -> Held:
    """The run of the smaller copy held against what is wanted."""
    got, held = Outline.of(rerun.traced), Held()
    for call in calls.wanted:
        if call.position >= len(got.nodes):
            why = f"the smaller copy raises {type(rerun.error).__name__}: {rerun.error}"
            found = _frozen(call, why, calls.shrinking(*call.node.all_input_nodes))
            return held | {place: Raised(why) for place, why in found.items()}
        held |= _compared(calls, call, got, rerun)
    return held


def _number(expression: Any, values: Mapping[Any, Any]) -> Any:
    try:
        return value(expression, values)
    except (ArithmeticError, ValueError, TypeError) as error:
        return f"{type(error).__name__}"


def _compared(calls: Calls, call: Wanted, got: Outline, rerun: Rerun) -> Held:
    node = got.nodes[call.position]
    if got.calls[call.position][1] != calls.origin.outline.calls[call.position][1]:
        return _frozen(call, "another call is made in its place by the smaller copy")
    for path, number in call.numbers.items():
        have = got.numbers.get((call.position, path))
        if have != number:
            return _held(calls, call, path, have, number)
    refs = rerun.traced.tape.nodes.get(node.name, {})
    for path, ref in calls.view.refs(call.node.name).items():
        planned = calls.view.lengths(ref)
        if path in refs and _other_shape(calls, ref, refs[path].shape, rerun):
            return _frozen(call, f"it gives shape {list(refs[path].shape)} where {list(planned)} is planned",
                           calls.shrinking(call.node))
    return _constant(calls, call, node, rerun)


def _other_shape(calls: Calls, ref: Ref, have: tuple[int, ...], rerun: Rerun) -> bool:
    """Whether a tensor is not as planned. Where the data decide on lengths, only those that a plan decides on count."""
    planned = calls.view.lengths(ref)
    if not rerun.traced.unsteady or len(have) != len(planned):
        return have != planned
    return any(n != m for dim, (n, m) in enumerate(zip(have, planned, strict=True))
               if calls.may_shrink(TensorDim(calls.tape, ref.id, dim)))


def _constant(calls: Calls, call: Wanted, node: Node, rerun: Rerun) -> Held:
    """A tensor that Python made or holds must be what is left of it."""
    constant = calls.view.traced.constants.get(str(call.node.target)) if node.op == "get_attr" else None
    have = rerun.traced.constants.get(str(node.target))
    if constant is None or have is None:
        return {}
    masks = calls.view.masks(calls.view.refs(call.node.name)[()])
    want = sliced(constant, {dim: mask.nonzero()[0] for dim, mask in enumerate(masks) if not mask.all()})
    if want.shape == have.shape and (want.is_meta or have.is_meta or torch.equal(want, have.to(want))):
        return {}
    return _frozen(call, "a tensor that the model's Python holds would have to shrink", calls.shrinking(call.node))


def _held(calls: Calls, call: Wanted, path: Path, have: Any, number: Any) -> Held:
    why = _unlike(have, number)
    steps = list(_steps(calls, call, path, number)) if isinstance(number, int) else []
    if steps:
        return {step: f"{call}: {why}" for step in steps}
    read = [place for place in _read(calls, call, path) if calls.shrinks(place)]
    if not isinstance(number, int):
        return _frozen(call, why, _last(calls, call.node) or read or list(_said_to_others(calls)))
    return _frozen(call, why, read or _lengths(calls, call, path, number))


def _frozen(call: Wanted, why: str, places: Sequence[TensorDim] = ()) -> Held:
    """These dimensions, or, where there are none, all that arrives at the call."""
    found: Held = {place: f"{call}: {why}" for place in places}
    return found or {call.node.name: f"{call}: {why}"}


def _unlike(have: Any, number: Any) -> str:
    return f"the model's Python gives it {have!r}, and it would have to be {number!r}"


def _node(calls: Calls, name: str) -> Node:
    return next(node for node in calls.view.traced.graph.nodes if node.name == name)


def _last(calls: Calls, node: Node) -> list[TensorDim]:
    """The last dimension of the first tensor that arrives, where it shrinks: values mostly follow that."""
    for source in node.all_input_nodes:
        for ref in calls.view.refs(source.name).values():
            place = TensorDim(calls.tape, ref.id, len(ref.shape) - 1)
            return [place] if ref.shape and calls.shrinks(place) else []
    return []


def _said_to_others(calls: Calls) -> Iterator[TensorDim]:
    """The dimensions whose length Python computes values from, ``math.sqrt(x.size(-1))``, or an attribute that says it,
    ``math.sqrt(self.head_size)``."""
    yield from filter(calls.shrinks, map(calls.dim, calls.origin.sizes))
    for call in calls.wanted:
        for path, number in call.numbers.items():
            if not calls.origin.read.isdisjoint(attributes_in(calls.expression(call, path))):
                yield from _lengths(calls, call, path, number)


def _read(calls: Calls, call: Wanted, path: Path) -> list[TensorDim]:
    return [calls.dim(leaf) for leaf in leaves(calls.expression(call, path))]


def _lengths(calls: Calls, call: Wanted, path: Path, number: int) -> list[TensorDim]:
    """The dimensions of the call's results that the number is the length of; by its place, where several could be."""
    before = calls.origin.outline.numbers.get((call.position, path))
    found = [place for place in calls.dims(call.node) if calls.size(place) == before and calls.left(place) == number]
    at = next((key for key in reversed(path) if isinstance(key, int)), 0) - (len(path) == 2)
    return [place for place in found if place.dim == at] or found


def _steps(calls: Calls, call: Wanted, path: Path, number: int) -> Iterator[InStep]:
    """What must shrink in step for this number to come out right."""
    own = _lengths(calls, call, path, number)
    for read in _read(calls, call, path):
        if not calls.may_shrink(read):
            continue
        if own and not calls.size(read) % calls.size(own[0]):
            yield InStep(read, own[0])
        if not own:
            yield from (InStep(read, whole) for whole in calls.dims(call.node)
                        if calls.size(whole) * number == calls.size(read))
    for attribute in attributes_in(calls.expression(call, path)):
        yield from _of_one_attribute(calls, call, path, attribute, own)


def _of_one_attribute(calls: Calls, call: Wanted, path: Path, attribute: Attribute, own: list[TensorDim]
                      ) -> Iterator[InStep]:
    """Calls that are given the same number by one attribute, and would need two."""
    expression = calls.expression(call, path)
    for other in calls.wanted:
        for place, number in other.numbers.items():
            if other is call and place == path or calls.expression(other, place) != expression:
                continue
            theirs = _lengths(calls, other, place, number)
            if own and theirs and calls.size(own[0]) == calls.size(theirs[0]) and own[0] != theirs[0]:
                yield InStep(own[0], theirs[0])


def _parts(calls: Calls) -> Held:
    """Parts of one tensor that a single number tells the length of must shrink alike; where one stays, all do."""
    held = Held()
    for name, why in list(calls.refused.items()):
        parts = calls.view.refs(str(name)).values() if name not in calls.valued else ()
        found: Held = {}
        for dim in range(min((len(ref.shape) for ref in parts), default=0)):
            places = [TensorDim(calls.tape, ref.id, dim) for ref in parts]
            if all(place.tensor in calls.view.dims for place in places) and len({*map(calls.left, places)}) > 1:
                found |= _alike(calls, places, why)
        if found:
            held |= found
            del calls.refused[name]
    return held


def _alike(calls: Calls, places: Sequence[TensorDim], why: str) -> Held:
    free = [place for place in places if calls.may_shrink(place)]
    if len(free) < len(places):
        return dict.fromkeys(free, why)
    return {InStep(free[0], place): why for place in free[1:]
            if calls.size(place) == calls.size(free[0]) and calls.left(place) != calls.left(free[0])}
