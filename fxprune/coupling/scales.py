"""Which normalisation's scale belongs to which voter.

A convolution in front of a batch norm is scale-free: its filter may shrink without the network computing anything
else, so that its norm alone says little. What the filter sends on is governed by the norm *with* the scale behind it.
The scale is that of the normalisation whose input is the voter's own output, read off the recorded run; a
normalisation behind a sum or a concatenation belongs to no voter.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fxprune.ir.groups import PRODUCER, CouplingGroup, is_scale
from fxprune.ir.signature import Signature

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

NORMS = ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")


def scale_names(groups: Mapping[str, CouplingGroup], signature: Signature) -> frozenset[str]:
    """The scales of normalisations among the groups' members."""
    shapes = {name: shape for name, shape, _ in signature.entries}
    return frozenset(m.name for group in groups.values() for m in group.members
                     if is_scale(m, len(shapes[m.name]), shapes))


def scales_of_voters(coupling: "Coupling", scales: frozenset[str]) -> dict[str, str]:
    """Voter's parameter name -> its normalisation's scale, for voters that have one. A scale belongs to one voter."""
    voters = {m.name for group in coupling.groups.values() for m in group.members if m.role == PRODUCER}
    found: dict[str, str] = {}
    for voter, scale in _pairs(coupling):
        if voter in voters and scale in scales and voter not in found and scale not in found.values():
            found[voter] = scale
    return found


def _pairs(coupling: "Coupling") -> Iterator[tuple[str, str]]:
    """(parameter that made a tensor, parameter that directly normalises it), along the recorded runs."""
    for tape in coupling.evidence.tapes:
        made: dict[int, str] = {}
        for call in tape.calls:
            operands = [arg for arg in (*call.args, *call.kwargs.values()) if hasattr(arg, "shape")]
            weights = [tape.params[ref.id] for ref in operands if ref.id in tape.params]
            source = next((made[ref.id] for ref in operands if ref.id in made), None)
            if any(norm in call.op for norm in NORMS):
                if source is not None:
                    yield from ((source, weight) for weight in weights)
            elif weights and hasattr(call.outs, "shape"):
                made[call.outs.id] = weights[0]
