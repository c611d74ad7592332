"""The original with removed channels masked, from nothing but a pruned model whose values are slices of the original's.

Only for weights that are all different: the place of every value that is left tells which indices stayed.
"""

import copy

import torch
from torch import nn


def masked_copy(model: nn.Module, small: nn.Module) -> nn.Module:
    """A copy of the original in which all that ``small`` lacks is zero, and norms are taken over the kept channels."""
    masked = copy.deepcopy(model)
    pruned = dict(small.named_parameters())
    kept = {name: kept_indices(p.detach(), pruned[name].detach()) for name, p in masked.named_parameters()
            if name in pruned}
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            for dim, indices in enumerate(kept.get(name, ())):
                gone = torch.ones(parameter.shape[dim], dtype=torch.bool)
                gone[indices] = False
                parameter.index_fill_(dim, gone.nonzero().flatten(), 0)
    for path, module in masked.named_modules():
        indices = kept.get(f"{path}.weight", [None])[0]
        if indices is not None and len(indices) < module.weight.shape[0] and is_norm(module):
            module.register_forward_hook(over(indices, small.get_submodule(path)))
    return masked


def kept_indices(whole: torch.Tensor, part: torch.Tensor) -> list[torch.Tensor]:
    """For each dimension, which indices of ``whole`` are in ``part``.

    >>> whole = torch.arange(12.).reshape(3, 4)
    >>> kept_indices(whole, whole[1:][:, [0, 3]])
    [tensor([1, 2]), tensor([0, 3])]
    """
    if whole.shape == part.shape:
        return [torch.arange(length) for length in whole.shape]
    values, order = whole.flatten().sort()
    flat = order[torch.searchsorted(values, part.flatten()).clamp(max=len(order) - 1)]
    places = torch.unravel_index(flat, whole.shape)
    # Of millions of values two may be the same: the indices that are met most often are those that stayed.
    return [torch.bincount(index, minlength=whole.shape[dim]).topk(part.shape[dim]).indices.sort().values
            for dim, index in enumerate(places)]


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm) or type(module).__name__.endswith(("LayerNorm", "LayerNorm2d", "RMSNorm"))


def over(indices: torch.Tensor, twin: nn.Module):  # type: ignore[no-untyped-def]
    """The smaller norm, on the kept channels."""
    def hook(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        dim = 1 if isinstance(module, nn.GroupNorm) or type(module).__name__.endswith("2d") else output.dim() - 1
        return torch.zeros_like(output).index_copy(dim, indices, twin(args[0].index_select(dim, indices)))
    return hook
