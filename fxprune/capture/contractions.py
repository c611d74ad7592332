"""Where a network contracts with its weights: every such call of a run, with what stands behind it.

Read off one run on small random inputs, by the identity of storages: a weight may be a parameter or any view of one (a
slice of a packed projection, a transpose). Behind a contraction may stand a chain that is affine channel by channel (a
batch norm, a layer scale, a bias), behind that a sum with what another branch carries, and an activation that is flat
somewhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxprune.capture.dispatch import storage_of
from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.capture.observer import facts
from fxprune.capture.pytrees import tree_iter
from fxprune.capture.stepwise import Numbered, Stop
from fxprune.ir.example_inputs import Example
from fxprune.rules.operands import argument
from fxprune.rules.products import Product, as_weight, factors, positions, product_of

UNCHANGED = {"aten::dropout", "aten::alias", "aten::clone", "aten::detach", "aten::_to_copy", "aten::to",
             "aten::feature_dropout", "aten::identity"}
# Below and above which an activation is constant; in between it is straight.
FLAT = {"aten::relu": (0.0, math.inf), "aten::hardsigmoid": (-3.0, 3.0)}


def _stored(value: Any) -> int | None:
    return storage_of(value) if isinstance(value, Tensor) else None


@dataclass(frozen=True)
class Norm:
    """A batch norm in inference mode: the operator's number, the names of its tensors, its epsilon, and where its mean
    is stored."""

    number: int
    mean: str
    var: str
    weight: str | None
    bias: str | None
    eps: float
    storage: int

    def met(self, stop: Stop) -> bool:
        """Whether a run of the same model has stopped at this call, and not at another of that number."""
        return len(stop.args) > 4 and _stored(stop.args[3]) == self.storage


@dataclass(frozen=True)
class Contraction:
    """One call with a weight.

    Args:
        number: of the operator in the run.
        name: the parameter.
        use: how often that parameter (or this view of it) was used before.
        view: size, stride and offset of the weight within the parameter's storage.
        product: the call as a product of matrices.
        places: how many positions its output had.
        storage: where the weight is stored.
        bias: the parameter that is its bias, or None.
        norm: the batch norm right behind it, or None.
        scales: names of parameters that its result, or the norm's, is multiplied by before it is added to something.
        other: number of the operator that made the other summand of the sum it ends in; None where it ends in none.
        flat: below and above which the activation is constant that alone reads the result, the norm's or the sum's;
            None where there is none, or where its thresholds are not those of either.
    """

    number: int
    name: str
    use: int
    view: tuple[tuple[int, ...], tuple[int, ...], int]
    product: Product
    places: int
    storage: int
    bias: str | None = None
    norm: Norm | None = None
    scales: tuple[str, ...] = ()
    other: int | None = None
    flat: tuple[float, float] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What is the same in a network and in one that was cut from it."""
        return self.name, self.use

    def met(self, stop: Stop) -> bool:
        """Whether a run of the same model has stopped at this call, and not at another of that number."""
        at, operands = self.product.weight_at, self._operands(stop)
        return len(operands) > at and _stored(operands[at]) == self.storage

    def weight(self, stop: Stop) -> Tensor:
        """The weight in this call: writing into it writes into the parameter."""
        return self._factor(stop, self.product.weight_at)

    def added(self, stop: Stop) -> Tensor | None:
        """The bias in this call, where it is a parameter."""
        at = self.product.bias_at
        if self.bias is None or at is None:
            return None
        return stop.args[at] if len(stop.args) > at else stop.kwargs["bias"]

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight of this call as [g, i, o]."""
        return self.product.matrix(weight)

    def laid_out(self, matrix: Tensor, like: Tensor) -> Tensor:
        """From [g, i, o] to the weight's own layout."""
        return as_weight(self.product, matrix, like)

    def rows(self, stop: Stop, picked: Tensor) -> Tensor:
        """What enters at these positions: [g, n, i]."""
        return self.product.rows(self._factor(stop, self.product.x_at), picked)

    def outputs(self, value: Tensor, picked: Tensor) -> Tensor:
        """What leaves at these positions, or of any tensor of that shape: [g, n, o]."""
        return self.product.outputs(value, picked)

    def positions(self, stop: Stop) -> int:
        """How many positions the output has (a stop behind the call)."""
        return positions(self.product, stop.out, self.weight(stop))

    def within(self, like: Tensor, values: Tensor) -> Tensor:
        """What this call uses of ``values``, a tensor strided as the parameter ``like`` is."""
        size, stride, offset = self.view
        return values.as_strided(size, stride, offset - like.storage_offset())

    def _factor(self, stop: Stop, at: int) -> Tensor:
        return self._operands(stop)[at]

    def _operands(self, stop: Stop) -> Sequence[Any]:
        listed = len(stop.args) > 1 and isinstance(stop.args[0], str) and isinstance(stop.args[1], (list, tuple))
        return stop.args[1] if listed else stop.args


@dataclass(frozen=True)
class Weighted:
    """The contractions and the batch norms of a run, in order."""

    contractions: tuple[Contraction, ...]
    norms: tuple[Norm, ...]


@dataclass
class _Entry:
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    makers: list[int]
    out: Any = None


class _Recorder(Numbered):
    """Keeps all tensors of the run, so that their identities stay unique."""

    def __init__(self, names: Mapping[int | None, str]):
        super().__init__()
        self.names = names
        self.entries: list[_Entry] = []
        self.made: dict[int, int] = {}
        self.users: dict[int, list[int]] = {}
        self._alive: list[Any] = []

    def same(self, tensor: Tensor, out: Tensor) -> None:
        self._alive.append(out)
        if id(tensor) in self.made:
            self.made[id(out)] = self.made[id(tensor)]

    def handle(self, number: int, func: Any, args: Any, kwargs: Any) -> Any:
        makers = [self.made[id(t)] for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)
                  and id(t) in self.made]
        for maker in makers:
            self.users.setdefault(maker, []).append(number)
        self.entries.append(_Entry(facts(func).name, tuple(args), dict(kwargs), makers))
        out = self.entries[-1].out = func(*args, **kwargs)
        self._alive.append((args, kwargs, out))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self.made[id(tensor)] = number
        return out

    def name(self, tensor: Any) -> str | None:
        """The parameter or buffer that a tensor is, or a view of."""
        return self.names.get(_stored(tensor))


def strided_like(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, and strided as the parameter is."""
    return torch.empty_strided(parameter.shape, parameter.stride(), dtype=dtype)


def weighted(model: nn.Module, example: Example) -> Weighted:
    """The contractions of ``model``, run on ``example`` in inference mode; pass a copy in eval mode.

    Args:
        example: a small one: all values of the run are kept meanwhile.
    """
    tensors = dict(named_tensors(model))
    names: dict[int, str] = {}
    shared: set[int] = set()
    for name in aliases(model):
        storage = storage_of(tensors[name])
        shared |= {storage} if storage in names else set()
        names.setdefault(storage, name)
    recorder = _Recorder({storage: name for storage, name in names.items() if storage not in shared})
    with torch.inference_mode():
        model(*example[0], **example[1])  # what only a first call does, no other does again
        with recorder:
            model(*example[0], **example[1])
    uses: dict[str, int] = {}
    found = []
    for number, entry in enumerate(recorder.entries):
        contraction = _contraction(recorder, number, entry, uses)
        if contraction is not None:
            found.append(contraction)
    norms = (_norm(recorder, number, entry) for number, entry in enumerate(recorder.entries))
    return Weighted(tuple(found), tuple(norm for norm in norms if norm is not None))


def _contraction(recorder: _Recorder, number: int, entry: _Entry, uses: dict[str, int]) -> Contraction | None:
    operands = factors(entry.op, entry.args)
    weights = [k for k, x in enumerate(operands[:3]) if recorder.name(x) is not None and x.dim() > 1]
    for at in weights:
        product = product_of(entry.op, entry.args, entry.kwargs, at)
        weight, name = operands[at], recorder.name(operands[at])
        if product is None or name is None:
            continue
        use = uses[name] = uses.get(name, -1) + 1
        view = tuple(weight.shape), tuple(weight.stride()), weight.storage_offset()
        place = product.bias_at
        bias = None if place is None else argument(entry.args, entry.kwargs, place, "bias", None)
        return Contraction(number, name, use, view, product, positions(product, entry.out, weight),
                           storage_of(weight), recorder.name(bias), *_behind(recorder, number, product))
    return None


def _behind(recorder: _Recorder, number: int, product: Product
            ) -> tuple[Norm | None, tuple[str, ...], int | None, tuple[float, float] | None]:
    """The affine chain behind an operator's result, the other summand of the sum it ends in, and where the activation
    behind is flat."""
    norm: Norm | None = None
    scales: list[str] = []
    plain = True  # nothing but the norm and the sum
    while len(set(recorder.users.get(number, ()))) == 1:
        user = recorder.users[number][0]
        entry = recorder.entries[user]
        op = entry.op.rstrip("_")
        found = _norm(recorder, user, entry)
        if found is not None and norm is None and not scales and product.channel_dim(entry.args[0]) == 1:
            norm = found
        elif op in ("aten::mul", "aten::add") and len(entry.makers) == 1 and (scale := _parameter(recorder, entry)):
            scales += [scale] if op == "aten::mul" else []
            plain = False
        elif op == "aten::add" and len(entry.makers) == 2 and entry.kwargs.get("alpha", 1) == 1:
            other = next(maker for maker in entry.makers if maker != number) if len(set(entry.makers)) == 2 else None
            return norm, tuple(scales), other, _flat(recorder, user) if plain and other is not None else None
        elif op not in UNCHANGED:
            break
        number = user
    return norm, tuple(scales), None, _flat(recorder, number) if plain else None


def _flat(recorder: _Recorder, number: int) -> tuple[float, float] | None:
    """Where the activation is constant that alone reads what this operator gives."""
    users = set(recorder.users.get(number, ()))
    if len(users) != 1:
        return None
    entry = recorder.entries[users.pop()]
    op = entry.op.rstrip("_")
    if op == "aten::hardtanh":
        low, high = (argument(entry.args, entry.kwargs, k, name, bound)
                     for k, (name, bound) in enumerate((("min_val", -1), ("max_val", 1)), 1))
        return float(low), float(high)
    return FLAT.get(op)


def _parameter(recorder: _Recorder, entry: _Entry) -> str | None:
    return next((recorder.name(x) for x in entry.args if recorder.name(x)), None)


def _norm(recorder: _Recorder, number: int, entry: _Entry) -> Norm | None:
    if entry.op != "aten::batch_norm" or entry.args[5]:
        return None
    weight, bias, mean, var = (recorder.name(x) for x in entry.args[1:5])
    return None if mean is None or var is None else Norm(number, mean, var, weight, bias, entry.args[7],
                                                         storage_of(entry.args[3]))
