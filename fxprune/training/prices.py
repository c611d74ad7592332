"""What a channel costs: how much strength its group gets where a budget is what training aims at."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fxprune.errors import InputError

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

COSTS = ("macs", "params")


def prices(coupling: "Coupling", groups: Iterable[str], cost: str | None) -> dict[str, float]:
    """A factor for each group: what one of its channels costs at full widths, over the mean of all channels.

    Args:
        coupling: has the costs.
        groups: those that are penalised.
        cost: ``"macs"``, ``"params"``, or None: all alike.

    The resource-weighted penalties of MorphNet (Gordon et al., CVPR 2018), per coupling group.

    >>> import torch
    >>> from fxprune import analyze
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3), torch.nn.Conv2d(4, 2, 3))
    >>> found = prices(analyze(net, torch.randn(1, 3, 12, 12)), ["0", "1"], "params")
    >>> {name: round(price, 3) for name, price in found.items()}  # 64 and 91 parameters a channel
    {'0': 0.877, '1': 1.247}
    """
    names = list(groups)
    if cost is None:
        return dict.fromkeys(names, 1.0)
    if cost not in COSTS:
        raise InputError(f"cost_weighting must be 'macs', 'params' or None, got {cost!r}; write cost_weighting='macs'")
    count, widths = getattr(coupling.costs, cost), coupling.widths
    places = [coupling.costs.groups.index(name) for name in names]
    whole = count(widths)
    saved = np.array([whole - count(widths - (np.arange(len(widths)) == place)) for place in places], float)
    return dict(zip(names, (saved / np.average(saved, weights=widths[places])).tolist(), strict=True))
