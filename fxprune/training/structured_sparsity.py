"""The other terms of structured sparsity learning (Wen et al., "Learning Structured Sparsity in Deep Neural Networks",
NIPS 2016). Its filter-wise and channel-wise ones are `fxprune.DWGL`, with ``direction=(1, 1)``, ``consumers=True``.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from fxprune.errors import InputError


def shape_wise(model: nn.Module) -> Tensor:
    """Σ_l Σ_{c,m,k} ‖W_l[:, c, m, k]‖₂ over the convolutions: columns of the unrolled filters, a scalar.

    A column that is zero in all filters of a layer is a position of its input patch that nobody reads. No channel goes
    with it; multiply by λ_s, and add it to the loss.

    Raises:
        InputError: the model has no convolution.

    >>> layer = nn.Conv2d(1, 2, (1, 2), bias=False)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[[[3.0, 1.0]]], [[[4.0, 0.0]]]]))
    >>> shape_wise(layer)
    tensor(6., grad_fn=<SumBackward0>)
    """
    columns = [m.weight.flatten(1) for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if not columns:
        raise InputError("shape_wise is a term over convolutions, and the model has none; leave it out")
    return torch.stack([torch.linalg.vector_norm(weight, dim=0).sum() for weight in columns]).sum()


def depth_wise(model: nn.Module, branches: Iterable[str]) -> Tensor:
    """Σ_l ‖W_l‖₂ over residual branches: all weights of a branch at once, a scalar.

    A branch that reaches zero adds nothing to its shortcut, and the block is the identity. Multiply by λ_d, and add it
    to the loss.

    Args:
        model: whose branches these are.
        branches: a name or a pattern each, as ``"layer1.*.conv*"``: all modules that it matches are one branch for each
            block (what stands before the last dot).

    Raises:
        InputError: a pattern that matches no module with parameters.

    >>> net = nn.ModuleDict({"a": nn.Linear(1, 2, bias=False), "b": nn.Linear(2, 1, bias=False)})
    >>> with torch.no_grad():
    ...     _ = net["a"].weight.fill_(0.0), net["b"].weight.copy_(torch.tensor([[3.0, 4.0]]))
    >>> depth_wise(net, ["*"])
    tensor(5., grad_fn=<SumBackward0>)
    """
    found: dict[str, list[Tensor]] = {}
    for pattern in [branches] if isinstance(branches, str) else branches:
        matched = {name: module for name, module in model.named_modules() if name and fnmatchcase(name, pattern)}
        weights = {name: list(module.parameters(recurse=False)) for name, module in matched.items()}
        if not any(weights.values()):
            raise InputError(f"branches must name modules with parameters, and {pattern!r} matches none; write "
                             '"layer1.*.conv*"')
        for name, own in weights.items():
            # A norm of norms, since shards of unequal lengths cannot be laid end to end.
            found.setdefault(name.rpartition(".")[0], []).extend(torch.linalg.vector_norm(p) for p in own)
    return torch.stack([torch.linalg.vector_norm(torch.stack(norms)) for norms in found.values() if norms]).sum()
