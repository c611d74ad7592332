"""The two sides of a verification: the masked original and the pruned module, with the same random weights."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.hooks import any_hooked
from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.capture.structure import isolated_copy
from fxprune.errors import VerificationError
from fxprune.ir.comparison import identical
from fxprune.ir.masks import index_of, selected
from fxprune.ir.tape import Tape, writes
from fxprune.verification.arithmetic import Arithmetic

Keep = Mapping[str, Mapping[int, Any]]
# Random numbers are drawn once and laid out periodically: rows of a weight are seldom multiples of a prime, so that
# they differ. Each tensor begins elsewhere.
PERIOD, STRIDE = 65521, 7919
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def picked(tensor: torch.Tensor, keep: Mapping[int, Any]) -> torch.Tensor:
    """The kept indices of the given dimensions, in their order."""
    for dim, indices in keep.items():
        tensor = selected(tensor, dim, index_of(tuple(indices)).to(tensor.device))
    return tensor


def check_weights(model: nn.Module, small: nn.Module, keep: Keep, gone: Collection[str] = ()) -> None:
    """Every parameter and buffer of the result is, bit for bit, the planned slice of the original's.

    Raises:
        VerificationError: the first tensor that is not, or that should be ``gone``.
    """
    original = dict(named_tensors(model))
    for name, tensor in named_tensors(small):
        if name in gone:
            raise VerificationError(f"{name!r} must be gone with its branch, and the result holds it; compress again")
        if name not in original:
            continue
        expected = picked(original[name].detach(), keep.get(name, {}))
        if expected.shape != tensor.shape:
            raise VerificationError(f"{name!r} must have shape {list(expected.shape)} under the plan, got "
                                    f"{list(tensor.shape)}; compress again")
        if _is_index(tensor):
            continue  # index tables are renumbered; the nodes that use them are compared
        if not identical(expected, tensor.detach()):
            raise VerificationError(f"{name!r} must hold the planned slice of the original's weights, and holds other "
                                    "values; verify before training goes on, and against the model that was pruned")


def _is_index(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


@dataclass
class Laid:
    """What pairs of one model share: random weights that no run writes into, and the pruned module that holds them."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    pruned: nn.Module | None = None


def pair(model: nn.Module, small: nn.Module, keep: Keep, arithmetic: Arithmetic, seed: int, laid: Laid | None = None
         ) -> tuple[nn.Module, nn.Module]:
    """Both with the same random weights, so that nothing is zero by accident; in the original's, what the plan removes
    is set to zero on both sides of every layer. The weights themselves are never copied.

    Args:
        laid: what an earlier pair has left here is taken again, for as much as no run may have changed it.
    """
    laid = laid or Laid()
    pool = torch.randn(PERIOD, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).repeat(2)
    originals, given = dict(named_tensors(model)), dict(named_tensors(small))
    targets = {} if laid.pruned is None else dict(named_tensors(laid.pruned))
    memo: dict[int, Any] = {}
    cut: dict[int, Any] = {}  # likewise, of the small one's tensors
    with torch.no_grad():
        for number, (first, names) in enumerate(aliases(model).items()):
            like, kept = originals[first], keep.get(first, {})
            if first in laid.tensors:
                memo[id(like)] = laid.tensors[first]
                continue
            part = _random(first, like, kept, arithmetic.stored_as(like.dtype), pool, number)
            for name in given.keys() & set(names):
                if name in targets:
                    targets[name].copy_(given[name] if _is_index(like) else part)
                own = given[name].detach().clone() if _is_index(like) else part if kept else part.clone()
                cut.setdefault(id(given[name]), _as(own, given[name]))
            memo[id(like)] = _as(part if _is_index(like) else laid_out(part, like.shape, kept), like)
    if laid.pruned is None:
        for tensor in given.values():
            kind = arithmetic.stored_as(tensor.dtype)
            cut.setdefault(id(tensor), _as(tensor.detach().to(kind, copy=True), tensor))
        laid.pruned = isolated_copy(small, cut)
    laid.tensors = {name: memo[id(t)] for name, t in originals.items() if isinstance(t, nn.Parameter)}
    return isolated_copy(model, memo), laid.pruned


def _as(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A parameter for a parameter, in its memory format."""
    if not like.is_contiguous():
        values = torch.empty_like(like, dtype=values.dtype, requires_grad=False).copy_(values)
    return nn.Parameter(values, like.requires_grad) if isinstance(like, nn.Parameter) else values


def changed_by(tape: Tape) -> set[str]:
    """The parameters and buffers that a run writes into, as far as its operators say; batch norms do not."""
    return {tape.params[number] for call in tape.calls for number in writes(call) if number in tape.params}


def written_into(pruned: nn.Module, tape: Tape) -> Callable[[], nn.Module]:
    """Call before a run of an emitted module; what it gives brings the module back to where it was. Only what a run may
    write into is copied; with hooks, which may hold anything, the module is."""
    if any_hooked(pruned):
        fresh = isolated_copy(pruned)
        return lambda: fresh
    written = changed_by(tape)
    before = {name: tensor.detach().clone() for name, tensor in named_tensors(pruned)
              if name in written or not isinstance(tensor, nn.Parameter)}

    def restore() -> nn.Module:
        with torch.no_grad():
            for name, tensor in named_tensors(pruned):
                if name in before:
                    tensor.copy_(before[name])
        return pruned

    return restore


def _random(name: str, like: torch.Tensor, keep: Mapping[int, Any], dtype: torch.dtype, pool: torch.Tensor, number: int
            ) -> torch.Tensor:
    """In place of what is kept of a parameter or a running statistic; of any other buffer what it holds there, of an
    index all that it holds."""
    leaf = name.rpartition(".")[2]
    if _is_index(like):
        return like.detach().clone()
    if not isinstance(like, nn.Parameter) and leaf not in ("running_mean", "running_var"):
        return picked(like.detach().to(dtype, copy=True), keep)
    shape = [len(keep.get(dim, range(length))) for dim, length in enumerate(like.shape)]
    count = math.prod(shape)
    start = number * STRIDE % PERIOD
    values = pool[start:start + min(PERIOD, count)]
    if isinstance(like, nn.Parameter):
        fan = max(count // max(shape[0], 1), 1) if len(shape) > 1 else 4
        values = values * fan ** -0.5 + (1.0 if len(shape) == 1 and leaf == "weight" else 0.0)
        values = torch.complex(values, values.flip(0)) if dtype.is_complex else values
    else:
        values = values * 0.1 if leaf == "running_mean" else values.abs() * 0.5 + 0.5
    values = values.to(like.device, dtype)
    if count > PERIOD:
        flat, whole = values.new_empty(count), count - count % PERIOD
        flat[:whole].view(-1, PERIOD).copy_(values)
        flat[whole:].copy_(values[:count - whole])
        values = flat
    return values.view(shape)


def laid_out(part: torch.Tensor, shape: Sequence[int], keep: Mapping[int, Any]) -> torch.Tensor:
    """Zeros of that shape, but for the part at the indices that are kept; the part itself where all are.

    >>> laid_out(torch.ones(1, 2), (2, 3), {0: (1,), 1: (0, 2)})
    tensor([[0., 0., 0.],
            [1., 0., 1.]])
    """
    if not keep:
        return part
    grid = np.ix_(*(keep.get(dim, range(length)) for dim, length in enumerate(shape[:max(keep) + 1])))
    # Of numpy: its zeros cost nothing where nothing is written. It does not know all dtypes, but their bits.
    bits = part.cpu() if part.dtype.is_complex else part.cpu().view(_BITS[part.dtype.itemsize])
    full = np.zeros(tuple(shape), bits.numpy().dtype)
    full[grid] = bits.numpy()
    return torch.from_numpy(full).view(part.dtype).to(part.device)
