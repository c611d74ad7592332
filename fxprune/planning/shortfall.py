"""What a plan removes beyond what the votes gave up: by how much, group by group, and what to do."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

# The norm below which a voter gives a channel up, as in `DWGL.votes`.
GIVEN_UP = 1e-3


def beyond(given_up: Mapping[str, np.ndarray], kept: Mapping[str, Sequence[int] | np.ndarray]) -> dict[str, int]:
    """Group name -> how many channels go that some voter holds on to; groups without any are left out.

    Args:
        given_up: group name -> bool [channels], which of them all voters give up.
        kept: group name -> the channels that stay.

    >>> beyond({"conv1": np.array([False, False, True, True])}, {"conv1": [0]})
    {'conv1': 1}
    """
    found = {}
    for name in given_up.keys() & kept.keys():
        held = ~given_up[name]
        held[np.asarray(kept[name], np.int64)] = False
        found[name] = int(held.sum())
    return {name: found[name] for name in kept if found.get(name)}


def say_what_goes_beyond(coupling: "Coupling", given_up: Mapping[str, np.ndarray],
                         kept: Mapping[str, Sequence[int] | np.ndarray], budget: str, stacklevel: int) -> None:
    """A warning where a plan removes more than the votes gave up; none where nobody gave up anything, which is no
    training towards a vote."""
    more = beyond(given_up, kept)
    agreed = {name: int(gone.sum()) for name, gone in given_up.items()}
    if not more or not any(agreed.values()):
        return
    removed = sum(len(given_up[name]) - len(kept[name]) for name in given_up.keys() & kept.keys())
    each = ", ".join(f"{name!r} {count} (of {agreed[name]} given up)" for name, count in
                     sorted(more.items(), key=lambda item: -item[1]))
    widths = np.array([max(1, width - agreed.get(name, 0)) for name, width in
                       zip(coupling.costs.groups, coupling.widths, strict=True)])
    share = coupling.costs.macs(widths) / max(coupling.costs.macs(coupling.widths), 1)
    warnings.warn(f"{budget} removes {removed} channels, {sum(more.values())} of them beyond what all voters gave up: "
                  f"{each}. The votes alone keep macs={share:.4f}: ask for that, or train on with "
                  "DWGL.towards(coupling, macs=…, steps=…), whose votes end at the budget; or fine-tune what this "
                  "plan costs", stacklevel=stacklevel)
