"""Layers that a model calls and whose output nobody reads: the pooling head of a vision tower of which a larger model
takes the tokens alone. A graph leaves them out; the module form's own Python runs them, and they must fit what is left.
"""

from dataclasses import replace

from torch import nn

from fxprune.capture.capturing import Captured
from fxprune.capture.liveness import NORMS, with_weights
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.replay import Place
from fxprune.ir.tape import Call, Tape, TensorDim, refs
from fxprune.rewrite.module_sizes import sized_by_weight

UNREAD = "the example leaves this output of a layer unread, and other callers may read it"
UNTOLD = "nothing reads what this layer gives, and no weight of it says what it remembers of its sizes"


def with_dead_layers(captured: Captured) -> Captured:
    """The capture with these layers' calls on its tapes."""
    whole = {id(traced): replace(traced, tape=with_weights(traced.tape)) for traced in captured.traced}
    return replace(captured, modes={mode: whole[id(traced)] for mode, traced in captured.modes.items()})


def calls_dead_layers(captured: Captured) -> bool:
    """Whether there is such a call on the tapes."""
    return any(call.node not in traced.tape.nodes for traced in captured.traced for call in traced.tape.calls)


def held_dead_layers(model: nn.Module, analysis: Analysis) -> dict[Place, str]:
    """What such layers give keeps its size, where no weight that others read goes with it (a norm's does, and so does
    the last residual of a WaveNet); and so does what reaches those whose sizes cannot be set.

    Args:
        analysis: of a capture `with_dead_layers`, in which nothing is held.
    """
    held: dict[Place, str] = {}
    live = _live_groups(analysis)
    evidence = analysis.coupling.evidence
    for number, tape in enumerate(evidence.tapes):
        for call in tape.calls:
            if call.node in tape.nodes:
                continue
            for ref in refs(call.outs):
                if ref.id not in tape.tensors_read:
                    vectors = evidence.dims[number][ref.id]
                    held |= {TensorDim(number, ref.id, dim): UNREAD for dim, vector in enumerate(vectors)
                             if live.isdisjoint(evidence.owners(vector).tolist())}
            owners = _owners(tape, call)
            if call.op in NORMS and not owners or \
                    not all(sized_by_weight(model.get_submodule(owner)) for owner in owners):
                held[call.node] = UNTOLD
    return held


def _live_groups(analysis: Analysis) -> set[int]:
    """The numbers of the groups that have a member which a graph reads."""
    read = {tape.params[ref.id] for tape in analysis.coupling.evidence.tapes for call in tape.calls
            if call.node in tape.nodes for ref in refs((call.args, call.kwargs)) if ref.id in tape.params}
    return {number for number, group in enumerate(analysis.coupling.groups.values())
            if any(member.name in read for member in group.members)}


def _owners(tape: Tape, call: Call) -> set[str]:
    """The layers whose weights a call reads."""
    return {tape.params[ref.id].rpartition(".")[0] for ref in refs((call.args, call.kwargs)) if ref.id in tape.params}
