"""Which dimensions of the inputs a captured graph takes at other lengths.

Sizes that Python computes with stay expressions. What other code makes of one (``range``, a list's index, numpy, a
cache) is a bare number in the graph, or a loop that has been unrolled. So the model is captured again, at other lengths
of its inputs, and the graphs are held against each other: a number that follows a length is written as an expression
of it, once that has been right at a length that it was not found from; a dimension at which anything else differs is
fixed, and the emitted module asserts it. Where the model never asked for a size, there is nothing to find out.
"""

import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fxprune.capture.dtypes import asked, recast, settle_dtypes, write_constants
from fxprune.capture.laws import explains, law, value
from fxprune.capture.outline import Outline, Place
from fxprune.capture.own_errors import own_bugs
from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.capture.size_nodes import SizeNodes
from fxprune.capture.sizes import Dim, leaves, line, readable
from fxprune.capture.traced import Fixed, Traced
from fxprune.errors import CaptureError
from fxprune.ir.example_inputs import Example

# A law is found from two other lengths and tried at a third.
SHOTS = 3
# The largest step between lengths: sizes that are divisible by no more than this are common.
STEP = 32
# Their first argument's channels are as many as the weights have.
_CONTRACTIONS = {"aten::linear": 1, "aten::conv1d": 2, "aten::conv2d": 3, "aten::conv3d": 4}

# One dimension of one input tensor, by their numbers.
Member = tuple[int, int]
Again = Callable[[Example, torch.dtype | None], Traced]


@dataclass(frozen=True)
class Axis:
    """Input dimensions of one length that are changed together."""

    members: tuple[Member, ...]
    length: int

    @property
    def is_batch(self) -> bool:
        return all(dim == 0 for _, dim in self.members)

    def lengths(self) -> list[int]:
        """Others to try, likeliest first: a batch takes any, an image what keeps it divisible, tokens a few less."""
        n, step = self.length, 1 if self.is_batch else min(self.length & -self.length, STEP)
        tried = dict.fromkeys((n + step, n + 1, n - 1, n + 2 * step, n // 2, n - 2))
        return [m for m in tried if m > 0 and m != n]


def contracted(captures: Iterable[Traced]) -> set[Member]:
    """The dimensions that the weights decide on."""
    return {member for traced in captures for member in _contracted(traced, list(traced.tape.inputs))}


def free_axes(captures: Iterable[Traced], shapes: Sequence[tuple[int, ...]]) -> list[Axis]:
    """The dimensions that settled captures all take at other lengths, as far as they know: one that nothing asked for
    may yet be one that an operator needs.

    Args:
        shapes: of the input tensors, in order.
    """
    held: set[Member] = set()
    for traced in captures:
        inputs = list(traced.tape.inputs)
        held |= _contracted(traced, inputs) | {(inputs.index(fixed.tensor), fixed.dim) for fixed in traced.fixed}
    return _together(shapes, held)


def _together(shapes: Sequence[tuple[int, ...]], held: Collection[Member]) -> list[Axis]:
    """The dimensions that are not held; those of one place and length in several tensors together."""
    places: dict[tuple[int, int], list[Member]] = {}
    for number, shape in enumerate(shapes):
        for dim, length in enumerate(shape):
            if length and (number, dim) not in held:
                places.setdefault((dim, length), []).append((number, dim))
    return [Axis(tuple(members), length) for (_, length), members in places.items()]


def ways(axis: Axis, shapes: Sequence[tuple[int, ...]]) -> Iterator[Axis]:
    """Which dimensions may have to change together: those in one place, each alone, all of that length."""
    yield axis
    if len(axis.members) > 1:
        yield from (Axis((member,), axis.length) for member in axis.members)
    alike = tuple((number, dim) for number, shape in enumerate(shapes) for dim, length in enumerate(shape)
                  if length == axis.length)
    if alike != axis.members:
        yield Axis(alike, axis.length)


def settle(traced: Traced, example: Example, again: Again, attempts: int = 6) -> Traced:
    """The same capture with every number that follows a length written so, every dtype that follows no tensor as a
    constant, and with the dimensions that are fixed.

    Args:
        traced: of a run on ``example``; its graph is changed.
        example: positional and keyword arguments, on the meta device or true ones.
        again: captures the model on other inputs, from a fresh copy; its tensors of the given dtype in another.
        attempts: how many lengths are tried for a dimension.

    Raises:
        CaptureError: the graph depends on what the inputs hold.
    """
    if not traced.sizes_asked:
        settle_dtypes(traced, example, again, asked(traced))
        return traced
    return _Settling(traced, example, again, attempts).settled()


class _Settling:
    def __init__(self, traced: Traced, example: Example, again: Again, attempts: int):
        self.traced, self.example, self.again, self.attempts = traced, example, again, attempts
        self.base = Outline.of(traced)
        self.tensors = [t for t in tree_iter(example) if isinstance(t, torch.Tensor)]
        self.inputs = list(traced.tape.inputs)
        self.why: dict[Member, str] = _pinned(traced, self.inputs)
        self.shots: dict[Axis, list[Outline]] = {}
        self.following: set[Dim] = set()

    def settled(self) -> Traced:
        if self.traced.unsteady:
            self._steady()
        held = _contracted(self.traced, self.inputs) | self.why.keys()
        axes, dtypes = _together([tuple(tensor.shape) for tensor in self.tensors], held), asked(self.traced)
        if axes and dtypes and self._all_free(axes, dtypes[0]):
            settle_dtypes(self.traced, self.example, self.again, dtypes[1:])
        else:
            settle_dtypes(self.traced, self.example, self.again, dtypes)
            if not self._all_free(axes):
                for axis in axes:
                    self._try(axis)
                self._write(self._laws())
        return replace(self.traced, fixed=tuple(self._fixed()), following=frozenset(self.following))

    def _steady(self) -> None:
        """Other contents at the same lengths must give the same graph."""
        got = self._at({})
        if isinstance(got, str) or self.base.differs(got) or self.base.moved(got):
            raise CaptureError("the model's Python reads a size that the contents of its inputs decide on, so that its "
                               "graph depends on the data")

    def _all_free(self, axes: list[Axis], dtype: torch.dtype | None = None) -> bool:
        """Whether one capture with all lengths changed shows that there is nothing to find; it mostly does. With a
        dtype that is changed as well, it is that dtype's capture, too."""
        if not axes:
            return True
        for close in (False, True) if dtype is None else (False,):
            changed: dict[Member, int] = {}
            for number, axis in enumerate(axes):
                step = (number + 1) * (1 if close else axis.lengths()[0] - axis.length)
                changed |= dict.fromkeys(axis.members, axis.length + step)
            got = self._at(changed, dtype)
            if isinstance(got, str) or self.base.steered(got) is not None:
                continue
            same = not (self.base.differs(got) or self.base.moved(got))
            if same:
                self.following |= self.base.lengths.other(got.lengths)
            if same and dtype is not None:
                write_constants(self.traced, self.base, got, dtype)
            return same
        return False

    def _try(self, axis: Axis) -> None:
        """Capture at other lengths, until one is taken; more often where numbers follow it."""
        why = ""
        for way in ways(axis, [tuple(tensor.shape) for tensor in self.tensors]):
            for length in way.lengths()[:self.attempts]:
                got = self._at(dict.fromkeys(way.members, length))
                if isinstance(got, str):
                    why = why or f"at {length} the model raises {got}"
                    continue
                condition = self.base.steered(got)
                if condition is not None:
                    why = f"the model asks for {readable(condition)}"
                    continue
                differs = self.base.differs(got)
                if differs:
                    self._fix(axis, f"at {length} {differs}")
                    return
                self.shots.setdefault(way, []).append(got)
                self.following |= self.base.lengths.other(got.lengths)
                if not self.base.moved(got) or len(self.shots[way]) == SHOTS:
                    return
            if way in self.shots:
                return
        self._fix(axis, why)

    def _fix(self, axis: Axis, why: str) -> None:
        for member in axis.members:
            self.why.setdefault(member, why)

    def _at(self, lengths: dict[Member, int], dtype: torch.dtype | None = None) -> Outline | str:
        """The capture at these lengths, or what was raised."""
        example = self.example if dtype is None else recast(self.example, dtype)
        try:
            traced = self.again(_resized(example, lengths), dtype)
        except Exception as error:  # whatever a model raises, it does not take these lengths
            own_bugs(error)
            return f"{type(error).__name__}: {str(error)[:120]}"
        return Outline.of(traced)

    def _laws(self) -> dict[Place, Any]:
        """For each number that follows lengths its expression. Where there is none, what it follows is fixed."""
        laws: dict[Place, Any] = {}
        places = dict.fromkeys(p for shots in self.shots.values() for shot in shots for p in self.base.moved(shot))
        for place in places:
            moving = [way for way, shots in self.shots.items() if any(place in self.base.moved(s) for s in shots)]
            found = self._law(place)
            if found is None:
                for way in moving:
                    self._fix(way, f"{self.base.shown(place)} follows it in no way that is known")
            else:
                laws[place] = found
        return {place: found for place, found in laws.items() if not self._about_fixed(place)}

    def _about_fixed(self, place: Place) -> bool:
        return all(way.members[0] in self.why for way, shots in self.shots.items()
                   if any(place in self.base.moved(shot) for shot in shots))

    def _law(self, place: Place) -> Any:
        """Found from all shots but the last of each dimension that the number follows, and right at those, too."""
        finding, trying = [self.base], []
        for shots in self.shots.values():
            follows = any(place in self.base.moved(shot) for shot in shots)
            if follows and len(shots) < 2:
                return None
            finding += shots[:-1] if follows else shots
            trying += shots[-1:] if follows else []
        found = law([shot.numbers[place] for shot in finding], self._at_hand(place, finding))
        if found is None:
            return None
        sizes = self._at_hand(place, trying, distinct=False)
        return found if explains(found, [shot.numbers[place] for shot in trying], sizes) else None

    def _at_hand(self, place: Place, shots: list[Outline], distinct: bool = True) -> dict[Any, list[Any]]:
        """The sizes that are known before that call and that change: what was seen read first, then the inputs'."""
        before = {ref.id for node in self.base.nodes[:place[0]]
                  for ref in self.traced.tape.nodes.get(node.name, {}).values()}
        lengths = self.base.lengths
        known = [number for number, tensor in enumerate(lengths.tensors) if tensor in before]
        dims = [Dim(number, dim) for number in known for dim in range(len(lengths.shapes[number]))]
        read = [e for e in map(lengths.named, self.traced.read) if all(leaf.tensor in known for leaf in leaves(e))]
        sizes: dict[Any, list[Any]] = {}
        seen = set()
        for size in (*read, *dims):
            values = [self._value(size, shot) for shot in shots]
            if None in values or distinct and (len(set(values)) == 1 or tuple(values) in seen):
                continue
            seen.add(tuple(values))
            sizes[size] = values
        return sizes

    @staticmethod
    def _value(size: Any, shot: Outline) -> Any:
        try:
            return shot.lengths[size] if isinstance(size, Dim) else value(size, shot.lengths)
        except (KeyError, IndexError, ArithmeticError, ValueError):
            return None

    def _write(self, laws: dict[Place, Any]) -> None:
        writer = SizeNodes(self.traced)
        for number, path in sorted(laws, key=lambda place: place[0]):
            writer.write(self.base.nodes[number], path, self.base.lengths.of_tape(laws[number, path]))

    def _fixed(self) -> Iterator[Fixed]:
        for (number, dim), why in sorted(self.why.items()):
            ref = self.inputs[number]
            yield Fixed(self.traced.tape.inputs[ref], ref, dim, self.tensors[number].shape[dim], why)


def _pinned(traced: Traced, inputs: list[int]) -> dict[Member, str]:
    """The dimensions that the model's Python compared with a number, and found equal."""
    pinned: dict[Member, str] = {}
    for guard in traced.guards:
        equal = (guard.fact.function, guard.value) in ((operator.eq, True), (operator.ne, False))
        if equal and isinstance(guard.fact.args[0], Dim) and isinstance(guard.fact.args[1], int):
            dim = guard.fact.args[0]
            if dim.tensor in inputs:
                pinned[inputs.index(dim.tensor), dim.dim] = f"the model asks for it ({line(guard.source)})"
    return pinned


def _contracted(traced: Traced, inputs: list[int]) -> set[Member]:
    """The dimensions that the weights decide on."""
    found = set()
    for call in traced.tape.calls:
        if call.op in _CONTRACTIONS and call.args[0].id in inputs:
            found.add((inputs.index(call.args[0].id), len(call.args[0].shape) - _CONTRACTIONS[call.op]))
    return found


def _resized(example: Example, lengths: dict[Member, int]) -> Example:
    """Inputs of the same kind at other lengths; true ones hold other values, too."""
    numbers = itertools.count()
    generator = torch.Generator().manual_seed(0)

    def make(tensor: torch.Tensor) -> torch.Tensor:
        number = next(numbers)
        shape = [lengths.get((number, dim), length) for dim, length in enumerate(tensor.shape)]
        if tensor.is_meta:
            return torch.empty(shape, dtype=tensor.dtype, device="meta")
        if tensor.is_floating_point() or tensor.is_complex():
            return torch.randn(shape, dtype=torch.float32, generator=generator).to(tensor)
        low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
        return torch.randint(low, high + 1, shape, generator=generator).to(tensor)

    return tree_map_only(torch.Tensor, make, example)

