"""Which nodes of a graph matter: those that outputs need, and writes into what they read."""

from dataclasses import replace

from torch.fx import Graph, Node

from fxprune.capture.contexts import is_context
from fxprune.capture.torch_functions import ASSERT
from fxprune.capture.traced import Traced
from fxprune.ir.tape import Tape, refs, writes

# They are given what they remember of their sizes, also where they have no weights.
NORMS = {"aten::layer_norm", "aten::rms_norm", "aten::group_norm"}


def drop_dead(graph: Graph, tape: Tape) -> None:
    """Take dead nodes out of the graph and their calls off the tape: what is never read ties nothing and costs
    nothing."""
    live = live_nodes(graph, tape)
    dead = [node for node in reversed(graph.nodes) if node not in live]
    for node in dead:
        tape.nodes.pop(node.name, None)
        graph.erase_node(node)
    names = {node.name for node in dead}
    tape.ran = list(tape.calls)
    tape.calls[:] = [call for call in tape.calls if call.node not in names]


def with_weights(tape: Tape) -> Tape:
    """The tape with those dead calls, too, that compute with weights or are norms, and with what leads to them: a
    model's own Python runs them, and they must fit what is left. (Pooling heads whose output another part of the model
    leaves alone.)"""
    kept = {id(call) for call in tape.calls}
    live, weighted = set(kept), set(tape.params)
    for call in tape.ran:
        if id(call) not in live and (call.op in NORMS or weighted & {ref.id for ref in refs((call.args, call.kwargs))}):
            kept.add(id(call))
            weighted |= {ref.id for ref in refs(call.outs)}
    needed: set[int] = set()
    for call in reversed(tape.ran):
        if id(call) in kept or needed & {ref.id for ref in refs(call.outs)}:
            kept.add(id(call))
            needed |= {ref.id for ref in refs((call.args, call.kwargs))}
    return tape if kept == live else replace(tape, calls=[call for call in tape.ran if id(call) in kept])


def live_nodes(graph: Graph, tape: Tape) -> set[Node]:
    """All nodes but dead code. A write matters where it lands in memory that a live node reads, or that outlives the
    call (a parameter, a buffer, an input)."""
    written = _writes(tape)
    lasting = {tape.storages.get(ref) for ref in (*tape.params, *tape.constants, *tape.inputs)}
    needed: set[Node] = set()
    read: set[int | None] = set(lasting)
    for node in reversed(graph.nodes):
        live = node in needed or node.op in ("output", "placeholder") or node.target is ASSERT or is_context(node) or \
            bool(written.get(node.name, set()) & read)
        if not live:
            continue
        needed.add(node)
        needed.update(node.all_input_nodes)
        for source in (node, *node.all_input_nodes):
            read.update(tape.storages.get(ref.id) for ref in tape.nodes.get(source.name, {}).values())
    return needed


def _writes(tape: Tape) -> dict[str, set[int | None]]:
    """Node name -> the storages that its operators write into."""
    found: dict[str, set[int | None]] = {}
    for call in tape.calls:
        for target in writes(call):
            found.setdefault(call.node, set()).add(tape.storages.get(target))
    return found


def written_later(traced: Traced, node: Node, other: Node) -> bool:
    """Whether a node behind this one writes into its memory, or into that of the other one."""
    tape, behind = traced.tape, False
    memory = {tape.storages.get(ref.id) for n in (node, other) for ref in tape.nodes.get(n.name, {}).values()}
    written = _writes(tape)
    for later in traced.graph.nodes:
        if behind and written.get(later.name, set()) & memory:
            return True
        behind = behind or later is node
    return False
