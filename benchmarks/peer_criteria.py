"""Torch-Pruning's criteria, on the same nets at the same MACs: `criteria.py` calls this for criteria named ``tp …``.

Groups are ranked over the whole network (``global_pruning=True``), in units of their mean, as that package does by
default; the ratio is bisected until the share of MACs fits. Batch norms are re-estimated as ours are, over the same
samples: cumulatively, in one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Halvings of the ratio: 2^-8 of the channels is less than one of a group.
HALVINGS = 8


def importances() -> dict[str, Callable[[], Any]]:
    """By name; empty where the package is not there."""
    try:
        import torch_pruning as tp
    except ImportError:
        return {}
    made = tp.importance
    return {"tp l1": lambda: made.GroupMagnitudeImportance(p=1), "tp l2": lambda: made.GroupMagnitudeImportance(p=2),
            "tp bn_scale": made.BNScaleImportance, "tp fpgm": made.FPGMImportance, "tp lamp": made.LAMPImportance,
            "tp random": made.RandomImportance, "tp taylor": made.GroupTaylorImportance}


def cut(model: nn.Module, criterion: str, macs: float, batches: Sequence[Tensor]) -> tuple[nn.Module, float]:
    """The network that keeps at most this share of the MACs, and the share that it keeps."""
    x = batches[0][:1]
    return bisected(model, x, partial(_cut, model, x, criterion, batches=batches), macs)


def bisected(model: nn.Module, x: Tensor, prune: Callable[[float], nn.Module], macs: float) -> tuple[nn.Module, float]:
    """Of what ``prune(ratio)`` makes the network that keeps at most this share of the MACs, and the share."""
    import torch_pruning as tp

    before, _ = tp.utils.count_ops_and_params(model, x)
    low, high, best = 0.0, 1.0, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        small = prune(ratio)
        kept = tp.utils.count_ops_and_params(small, x)[0] / before
        low, high, best = (low, ratio, (small, kept)) if kept <= macs else (ratio, high, best)
    if best is None:
        raise RuntimeError(f"no ratio leaves {macs:.0%} of the MACs")
    return best


def _cut(model: nn.Module, x: Tensor, criterion: str, ratio: float, batches: Sequence[Tensor]) -> nn.Module:
    import torch_pruning as tp

    small = copy.deepcopy(model).eval()
    torch.manual_seed(0)  # of the random one
    if criterion == "tp taylor":
        for batch in batches:  # without labels, as ours: outputs on random signs
            outputs = small(batch)
            (outputs * (torch.randint(0, 2, outputs.shape) * 2 - 1)).sum().backward()
    pruner = tp.pruner.BasePruner(small, x, importances()[criterion](), global_pruning=True, pruning_ratio=ratio,
                                  max_pruning_ratio=0.95, ignored_layers=[m for m in small.modules()
                                                                          if isinstance(m, nn.Linear)])
    pruner.step()
    small.zero_grad()
    return small


@torch.no_grad()
def reestimate(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Batch norms, cumulatively, in one pass."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for batch in batches:
        model(batch)
    model.eval()
