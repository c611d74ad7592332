"""The two sides of a verification: the masked original and the pruned module, with the same random weights."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxprune.capture.hooks import any_hooked
from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.capture.structure import isolated_copy
from fxprune.errors import VerificationError
from fxprune.ir.comparison import identical
from fxprune.ir.masks import index_of, index_of_rest, selected
from fxprune.ir.tape import Tape, writes
from fxprune.verification.arithmetic import Arithmetic

Keep = Mapping[str, Mapping[int, Any]]
# Random numbers are drawn once and laid out periodically: rows of a weight are seldom multiples of a prime, so that
# they differ. Each tensor begins elsewhere.
PERIOD, STRIDE = 65521, 7919


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
            tensor = _random(first, like, arithmetic.stored_as(like.dtype), pool, number)
            for name in given.keys() & set(names):
                part = given[name].detach().clone() if _is_index(given[name]) else picked(tensor, kept)
                if name in targets:
                    targets[name].copy_(part)
                cut.setdefault(id(given[name]), _as(part if kept else part.clone(), given[name]))
            for dim, indices in kept.items():
                _mask(tensor, dim, indices)
            memo[id(like)] = _as(tensor, like)
    if laid.pruned is None:
        for tensor in given.values():
            kind = arithmetic.stored_as(tensor.dtype)
            cut.setdefault(id(tensor), _as(tensor.detach().to(kind, copy=True), tensor))
        laid.pruned = isolated_copy(small, cut)
    laid.tensors = {name: memo[id(t)] for name, t in originals.items() if isinstance(t, nn.Parameter)}
    return isolated_copy(model, memo), laid.pruned


def _as(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A parameter for a parameter."""
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


def _random(name: str, like: torch.Tensor, dtype: torch.dtype, pool: torch.Tensor, number: int) -> torch.Tensor:
    """In place of a parameter or a running statistic; of anything else a copy."""
    leaf = name.rpartition(".")[2]
    if _is_index(like) or not isinstance(like, nn.Parameter) and leaf not in ("running_mean", "running_var"):
        return like.detach().clone().to(dtype)
    start = number * STRIDE % PERIOD
    values = pool[start:start + min(PERIOD, like.numel())]
    if isinstance(like, nn.Parameter):
        fan = max(like.numel() // max(like.shape[0], 1), 1) if like.dim() > 1 else 4
        values = values * fan ** -0.5 + (1.0 if like.dim() == 1 and leaf == "weight" else 0.0)
        values = torch.complex(values, values.flip(0)) if dtype.is_complex else values
    else:
        values = values * 0.1 if leaf == "running_mean" else values.abs() * 0.5 + 0.5
    if like.numel() <= PERIOD and like.is_contiguous():
        return values.to(like.device, dtype).view(like.shape)
    out = torch.empty(like.shape, dtype=dtype, device=like.device)
    flat, values = out.view(-1), values.to(out)
    whole = len(flat) - len(flat) % PERIOD
    if whole:
        flat[:whole].view(-1, PERIOD).copy_(values)
    flat[whole:].copy_(values[:len(flat) - whole])
    return out if like.is_contiguous() else torch.empty_like(like, dtype=dtype, requires_grad=False).copy_(out)


def _mask(tensor: torch.Tensor, dim: int, kept: Any) -> None:
    if not _is_index(tensor):
        tensor.index_fill_(dim, index_of_rest(tuple(kept), tensor.shape[dim]).to(tensor.device), 0)
