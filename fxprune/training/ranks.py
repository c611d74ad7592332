"""Whether all ranks are about to do the same: found out before anything is done."""

import hashlib
import json
from typing import Any

import torch.distributed as dist
from torch import nn

from fxprune.errors import PlanError
from fxprune.planning import Plan
from fxprune.planning.digest import digest_of


def check_ranks(plan: Plan, model: nn.Module, group: Any = None) -> None:
    """Every rank holds the same plan, the same weights and the same versions; all ranks learn of a difference.

    Args:
        plan: what this rank is about to carry out.
        model: the plain module that it is carried out on (``wrapped.module``).
        group: the process group; all ranks where None.

    Raises:
        PlanError: on every rank, with the first rank that differs from rank 0, and in what.

    >>> import tempfile, torch, fxprune
    >>> dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> check_ranks(fxprune.plan(fxprune.analyze(net, torch.zeros(1, 3)), net, channels=0.5), net)
    >>> dist.destroy_process_group()
    """
    text = json.dumps(plan.to_dict(), sort_keys=True, default=str)
    mine = {"weights": digest_of(model), "plan": hashlib.sha256(text.encode()).hexdigest(),
            "versions": json.dumps(dict(plan.versions), sort_keys=True)}
    found: list[dict[str, str]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group)
    for rank, other in enumerate(found):
        different = [what for what in mine if other[what] != found[0][what]]
        if different:
            raise PlanError(f"all ranks must hold the same weights, plan and versions, but rank {rank} differs from "
                            f"rank 0 in its {' and its '.join(different)}; broadcast them from one rank "
                            "(dist.broadcast_object_list), or load one checkpoint on all")
