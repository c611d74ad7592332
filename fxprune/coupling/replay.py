"""Replay a tape through the rules: what every dimension of every tensor is, and what is tied to what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fxprune.errors import RuleError
from fxprune.ir.evidence import Slot
from fxprune.ir.policy import Policy
from fxprune.ir.tape import Call, Ref, Tape, TensorDim, refs
from fxprune.ir.trees import leaves, mapped
from fxprune.ir.units import Closure, Reason, Vector
from fxprune.rules.bugs import Bug, failed, frozen_by
from fxprune.rules.op import Notes, Op
from fxprune.rules.registry import Couple, Operand, couple_of
from fxprune.rules.repeats import repeated_dims

# How often frozen choices are turned round before the analysis settles.
ROUNDS = 4


@dataclass(frozen=True)
class InStep:
    """Two dimensions that shrink in step: with an index of the shorter as many of the longer."""

    longer: TensorDim
    shorter: TensorDim


# What may be held: a node by its name, a call by its number, a dimension of a tensor, or two of them in step.
Place = str | int | TensorDim | InStep


@dataclass
class Replay:
    """The outcome: ``dims[t][ref]`` are the dim vectors of a tensor of tape t, ``slots`` those of the parameters."""

    notes: Notes
    closure: Closure
    dims: tuple[dict[int, tuple[Vector, ...]], ...]
    slots: dict[Slot, Vector]
    joints: list[tuple[str, tuple[Vector, ...]]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    bugs: tuple[Bug, ...] = ()


def replay(tapes: Sequence[Tape], policy: Policy, frozen: Mapping[Place, str]) -> Replay:
    """Replay until no choice is left that froze what it should have freed.

    Args:
        frozen: nodes (by name) and calls (by number) at which whatever arrives is frozen, and dimensions of tensors,
            with the reason (found out by a trial).
    """
    choices: dict[tuple[int, int], int] = {}
    for _ in range(ROUNDS):
        outcome = _Run(policy, choices, frozen).all(tapes)
        turned = _turned(outcome, choices)
        if not turned:
            return outcome
        choices = {**choices, **turned}
    return outcome


def _turned(outcome: Replay, choices: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """The choices whose carrier ended up without a channel that something produces and nothing holds, each moved to its
    next alternative: first those that froze other carriers for one that nothing produces at all."""
    produced = np.zeros(outcome.notes.ties.count + 1, bool)
    for _, vector in outcome.notes.produced:
        produced[outcome.closure.channel[vector[vector >= 0]]] = True
    free: dict[tuple[int, int], bool] = {}
    made: dict[tuple[int, int], bool] = {}
    for key, vector in outcome.notes.hinges:
        channels = outcome.closure.of(vector)
        free[key] = free.get(key, False) or bool(produced[channels[channels >= 0]].any())
        made[key] = made.get(key, False) or bool(produced[outcome.closure.channel[vector[vector >= 0]]].any())
    turned = {key: choices.get(key, 0) + 1 for key, alive in free.items()
              if not alive and choices.get(key, 0) + 1 < outcome.notes.options[key]}
    return {key: choice for key, choice in turned.items() if key in outcome.notes.excluding and not made[key]} or turned


class _Run:
    """One pass over all tapes; parameters are the same units in each."""

    def __init__(self, policy: Policy, choices: dict[tuple[int, int], int], frozen: Mapping[Place, str]):
        self.policy, self.choices, self.frozen = policy, choices, frozen
        self.notes = Notes()
        self.slots: dict[Slot, Vector] = {}
        self.params: dict[str, tuple[Vector, ...]] = {}
        self.joints: list[tuple[str, tuple[Vector, ...]]] = []
        self.calls: list[Call] = []
        self.weights: set[int] = set()
        self.read: set[int] = set()
        self.repeated: dict[int, frozenset[int]] = {}
        self.bugs: dict[Bug, None] = {}

    def all(self, tapes: Sequence[Tape]) -> Replay:
        dims = tuple(self._tape(tape) for tape in tapes)
        for place, why in self.frozen.items():
            if isinstance(place, TensorDim):
                self.notes.ties.freeze(dims[place.tape][place.tensor][place.dim], Reason(why))
            if isinstance(place, InStep):
                longer, shorter = (dims[at.tape][at.tensor][at.dim] for at in (place.longer, place.shorter))
                self.notes.ties.tie(longer, np.repeat(shorter, len(longer) // len(shorter)))
        return Replay(self.notes, self.notes.ties.close(), dims, self.slots, self.joints, self.calls,
                      tuple(self.bugs))

    def _tape(self, tape: Tape) -> dict[int, tuple[Vector, ...]]:
        dims: dict[int, tuple[Vector, ...]] = {}
        self.weights, self.read, self.repeated = set(tape.params), tape.tensors_read, {}
        for call in tape.calls:
            self.calls.append(call)
            self._call(tape, call, dims)
        held = [ref for ref, name in zip(tape.outputs, tape.output_names, strict=True) if self.policy.holds(name)]
        for ref in held:
            for vector in dims.get(ref, ()):
                self.notes.ties.freeze(vector, Reason("model output"))
        return dims

    def _call(self, tape: Tape, call: Call, dims: dict[int, tuple[Vector, ...]]) -> None:
        def operand(ref: Ref) -> Operand:
            return Operand(self._vectors(tape, ref, dims), tape.values.get(ref.id), ref.id in tape.params,
                           ref.id in self.weights, ref.id in tape.masks,
                           self.repeated.get(ref.id, frozenset()))

        outs = list(refs(call.outs))
        place = (call.node, call.source)
        unread = frozenset(place for place, ref in enumerate(outs) if ref.id not in self.read)
        op = Op(len(self.calls) - 1, call.op, call.overload, [ref.shape for ref in outs], place, self.policy,
                self.choices, self.notes, unread)
        args, kwargs = mapped((call.args, call.kwargs), operand, Ref)
        operands = leaves((args, kwargs), Operand)
        results = self._couple(op, call, args, kwargs, operands)
        for ref, vectors in zip(outs, results, strict=True):
            dims[ref.id] = tuple(vectors)
        self._weigh(operands, outs)
        self.repeated |= {ref.id: repeated_dims(call.op, operands, ref.shape) for ref in outs}
        why = self.frozen.get(call.node) or self.frozen.get(len(self.calls) - 1)
        if why:
            # What arrives is held; a call that only makes something holds what it makes.
            arriving = [o for o in operands if not o.is_weight]
            op.unknown(*(arriving or map(Operand, results)), why=why)
        if sum(not o.is_param and len(o) > 1 for o in operands) > 1:
            self.joints.append((call.op.partition("::")[2].rstrip("_"), tuple(v for r in results for v in r)))

    def _weigh(self, operands: list[Operand], outs: list[Ref]) -> None:
        """What is made from parameters alone (a transposed, a standardised one) is a weight as well."""
        made = bool(operands) and all(operand.is_weight for operand in operands)
        change = self.weights.update if made else self.weights.difference_update
        change(ref.id for ref in outs)

    def _couple(self, op: Op, call: Call, args: Any, kwargs: Any, operands: list[Operand]
                ) -> list[tuple[Vector, ...]]:
        couple = couple_of(call.op)
        if couple is None:
            return op.unknown(*operands, why=f"operator {call.op} has no rule; add one with fxprune.register_rule")
        try:
            return _coupled(couple, op, call, args, kwargs)
        except RuleError as error:  # what a rule that fails has understood must not let anything through
            bug = frozen_by(error)
            self.bugs[bug] = None
            return op.unknown(*operands, why=bug)

    def _vectors(self, tape: Tape, ref: Ref, dims: dict[int, tuple[Vector, ...]]) -> tuple[Vector, ...]:
        if ref.id in dims:
            return dims[ref.id]
        ties = self.notes.ties
        name = tape.params.get(ref.id)
        if name is not None:
            vectors = self.params.get(name)
            if vectors is None:
                vectors = self.params[name] = tuple(map(ties.fresh, ref.shape))
                self.slots.update({(name, d): vector for d, vector in enumerate(vectors)})
        elif ref.id in tape.constants:
            vectors = tuple(map(ties.fresh, ref.shape))
        elif ref.id in tape.inputs:
            vectors = tuple(ties.fixed(n, Reason(f"model input {tape.inputs[ref.id]!r}")) for n in ref.shape)
        else:
            vectors = tuple(ties.fixed(n, Reason("tensor of unknown origin")) for n in ref.shape)
        dims[ref.id] = vectors
        return vectors


def _coupled(couple: Couple, op: Op, call: Call, args: Any, kwargs: Any) -> list[tuple[Vector, ...]]:
    try:
        result = couple(op, *args, **kwargs)
    except Exception as error:
        raise failed(call.op, "rule", call.source, error) from error
    results = result if isinstance(result, list) else [result]
    shapes = [tuple(map(len, vectors)) for vectors in results]
    if shapes != list(op.shapes):
        raise failed(call.op, "rule", call.source, f"gave shapes {shapes} where the operator gave {list(op.shapes)}")
    return results
