"""Layers that a model calls and whose output nobody reads: the pooling head of a vision tower of which a larger model
takes the tokens alone. A graph leaves them out; the module form's own Python runs them, and they must fit what is left.
"""

from dataclasses import replace

from torch import nn

from fxprune.capture.capturing import Captured
from fxprune.capture.liveness import with_weights
from fxprune.coupling.replay import Place
from fxprune.ir.tape import Call, Tape, TensorDim, refs
from fxprune.rewrite.module_sizes import sized_by_weight

UNREAD = "the example leaves this output of a layer unread, and other callers may read it"
UNTOLD = "nothing reads what this layer gives, and its weight does not say what it remembers of its sizes"


def with_dead_layers(captured: Captured) -> Captured:
    """The capture with these layers' calls on its tapes."""
    whole = {id(traced): replace(traced, tape=with_weights(traced.tape)) for traced in captured.traced}
    return replace(captured, modes={mode: whole[id(traced)] for mode, traced in captured.modes.items()})


def held_dead_layers(model: nn.Module, captured: Captured) -> dict[Place, str]:
    """What such layers give keeps its size, and so does what reaches those whose sizes cannot be set. A sum with what
    others read goes with that, as the last residual of a WaveNet does."""
    held: dict[Place, str] = {}
    for number, traced in enumerate(captured.traced):
        tape, read = traced.tape, traced.tape.tensors_read
        live = {ref.id for call in tape.calls if call.node in tape.nodes for ref in refs(call.outs)}
        for call in tape.calls:
            if call.node in tape.nodes:
                continue
            owners = _owners(tape, call)
            if owners or live.isdisjoint(ref.id for ref in refs((call.args, call.kwargs))):
                held |= {TensorDim(number, ref.id, dim): UNREAD for ref in refs(call.outs) if ref.id not in read
                         for dim in range(len(ref.shape))}
            if not all(sized_by_weight(model.get_submodule(owner)) for owner in owners):
                held[call.node] = UNTOLD
    return held


def _owners(tape: Tape, call: Call) -> set[str]:
    """The layers whose weights a call reads."""
    return {tape.params[ref.id].rpartition(".")[0] for ref in refs((call.args, call.kwargs)) if ref.id in tape.params}
