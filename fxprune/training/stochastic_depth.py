"""Stochastic depth (Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016): residual branches drop out while
training, the deeper the more often."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fxprune.errors import InputError, unknown

MODES = ("row", "batch")


def survival(branch: int, branches: int, last: float = 0.5) -> float:
    """p_l = 1 − (l / L)(1 − p_L), l counted from 1.

    >>> [survival(k, 4) for k in (1, 2, 3, 4)]
    [0.875, 0.75, 0.625, 0.5]
    """
    return 1 - branch / branches * (1 - last)


@contextmanager
def stochastic_depth(model: nn.Module, branches: Sequence[str], last: float = 0.5, mode: str = "batch"
                     ) -> Iterator[nn.Module]:
    """Train the model with branches that drop out; afterwards it is as it was, its weights trained.

    Survivors are scaled by 1/p while training, so that nothing is to be scaled when the model is used; the paper scales
    by p then, which is the same in expectation.

    Args:
        model: hooks are put on its branches, and taken away at the end. It acts in training mode alone.
        branches: the last module of each residual branch, whose output is added to the shortcut, in the order of the
            blocks: ``["layer1.0.bn2", "layer1.1.bn2", …]``.
        last: p_L, how often the last one survives.
        mode: ``"batch"`` drops a branch for all samples, as in the paper, ``"row"`` for each of its own.

    Raises:
        InputError: no such module or mode, or a probability outside (0, 1].

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> with stochastic_depth(net, ["0", "1"], last=0.5):
    ...     _ = net(torch.ones(1, 2))
    """
    from torchvision.ops import stochastic_depth as dropped

    modules = dict(model.named_modules())
    missing = [name for name in branches if name not in modules]
    if not branches or missing:
        raise InputError(unknown("module", missing[0], modules) if missing else
                         "branches must name at least one module")
    if not isinstance(last, (int, float)) or isinstance(last, bool) or not 0 < last <= 1:
        raise InputError(f"last must be a probability in (0, 1], got {last!r}; write last=0.5")
    if mode not in MODES:
        raise InputError(unknown("mode", mode, MODES))

    def hook(p: float) -> Any:
        def drop(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            kept: Tensor = dropped(output, 1 - p, mode, module.training)
            return kept

        return drop

    hooks = [modules[name].register_forward_hook(hook(survival(k, len(branches), last)))
             for k, name in enumerate(branches, start=1)]
    try:
        yield model
    finally:
        for handle in hooks:
            handle.remove()
