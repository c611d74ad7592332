"""How strongly each channel fires on data."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.layer_classes import CONVOLUTION, NORM
from fxprune.coupling.scales import scale_names, scales_of_voters
from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup, Member
from fxprune.ir.progress import progress

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling



def mean_activations(coupling: "Coupling", model: nn.Module, data: Iterable[Any], groups: Mapping[str, CouplingGroup],
                     ) -> dict[str, np.ndarray]:
    """Mean |activation| of each channel behind its voters: group name -> float64 [voters, size].

    What is read is the output of the normalisation right behind a voter, else the voter's own. Voters that are no
    modules (functional calls) have no row; groups without any row are left out.

    Args:
        coupling: of this model.
        model: run in eval mode, with hooks; pass a copy.
        data: batches: tensors, (inputs, labels) or dicts of keyword arguments.
        groups: the groups that are wanted.

    Raises:
        InputError: no data, or activations that are not finite.
    """
    scales = scales_of_voters(coupling, scale_names(groups, coupling.signature))
    modules = dict(model.named_modules(remove_duplicate=False))
    readers: dict[str, _Reader] = {}
    wanted: dict[str, list[tuple[_Reader, Member]]] = {}
    for name, group in groups.items():
        for voter in group.voters:
            layer = scales.get(voter.name, voter.name).rpartition(".")[0]
            if layer in modules and _width(modules[layer]) == _length(coupling, voter):
                readers.setdefault(layer, _Reader(_dim(modules[layer])))
                wanted.setdefault(name, []).append((readers[layer], voter))
    hooks = [modules[layer].register_forward_hook(reader) for layer, reader in readers.items()]
    try:
        _run(model.eval(), data, len(coupling.inputs.args))
    finally:
        for hook in hooks:
            hook.remove()
    # A module may be in the model and never be called: attention uses its output projection's weight alone.
    called = {name: [(r, m) for r, m in pairs if r.count] for name, pairs in wanted.items()}
    return {name: np.stack([_per_channel(r, m, groups[name].size) for r, m in pairs])
            for name, pairs in called.items() if pairs}


class _Reader:
    """A forward hook that sums |output| over everything but the channels' dimension."""

    def __init__(self, dim: int):
        self.dim, self.count = dim, 0
        self.total = torch.zeros(0)

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> None:
        rest = [d for d in range(output.dim()) if d != self.dim % output.dim()]
        total = output.detach().abs().double().sum(rest).cpu()
        self.total = self.total + total if self.count else total
        self.count += output.numel() // max(len(total), 1)

    @property
    def mean(self) -> np.ndarray:
        return self.total.div(max(self.count, 1)).numpy()


@torch.no_grad()
def _run(model: nn.Module, data: Iterable[Any], arguments: int) -> None:
    weight = next(model.parameters())
    batches = 0
    for batch in [data] if isinstance(data, Tensor) else progress(data, "activations"):
        args, kwargs = _arguments(batch, max(arguments, 1))
        model(*(_to(a, weight) for a in args), **{key: _to(a, weight) for key, a in kwargs.items()})
        batches += 1
    if not batches:
        raise InputError("data must hold at least one batch, got none; pass a loader, or a list of batches")


def _arguments(batch: object, arguments: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, list | tuple):
        return tuple(batch[:arguments]), {}
    return (batch,), {}


def _to(value: object, weight: Tensor) -> object:
    if not isinstance(value, Tensor):
        return value
    return value.to(weight.device, weight.dtype if value.is_floating_point() else value.dtype)


def _dim(module: nn.Module) -> int:
    """The dimension of a module's output that holds its channels."""
    if isinstance(module, CONVOLUTION):
        # From the end, since a convolution also takes inputs without a batch.
        return -1 - (module.weight.dim() - 2)
    return 1 if isinstance(module, (NORM, nn.GroupNorm)) else -1


def _width(module: nn.Module) -> int | None:
    for name in ("out_channels", "num_features", "num_channels", "out_features"):
        width = getattr(module, name, None)
        if isinstance(width, int):
            return width
    shape = getattr(module, "normalized_shape", None)
    return shape[-1] if shape else None


def _length(coupling: "Coupling", voter: Member) -> int:
    return next(shape[voter.dim] for name, shape, _ in coupling.signature.entries if name == voter.name)


def _per_channel(reader: _Reader, member: Member, size: int) -> np.ndarray:
    mean = reader.mean
    if not np.isfinite(mean).all():
        raise InputError(f"activations must be finite to order channels by them, but those behind {member.layer!r} are "
                         "not; look for the cause in the weights or in the data")
    count = np.bincount(member.channel, minlength=size)
    return np.bincount(member.channel, weights=mean[member.index], minlength=size) / np.maximum(count, 1)
