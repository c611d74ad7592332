"""Recurrent layers: hidden units are rows of both weights, once per gate, and columns of the hidden weight.

``w_ih [gates·H, I]``, ``w_hh [gates·H, P]``, biases ``[gates·H]``, and where outputs are projected ``w_hr [P, H]``
(else P = H). States are ``[layers·directions, batch, P]``: one tensor for all layers, so that layers whose states are
given share their hidden units index by index.
"""

import numpy as np

from fxprune.ir.units import Vector
from fxprune.rules.operands import Vectors, cost
from fxprune.rules.registry import Operand, register_rule

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def direction(op, x: Vector, weights: list[Operand], gates: int, steps: list[Vector]) -> tuple[Vector, Vector]:
    """Ties one direction of one layer; gives its hidden units and its outputs (the same unless projected)."""
    w_ih, w_hh, *rest = weights
    hidden = w_ih[0][:len(w_ih[0]) // gates]
    rows = np.tile(hidden, gates)
    projection = rest.pop() if rest and len(rest[-1]) == 2 else None
    for weight in (w_ih, w_hh, *rest):
        op.tie(rows, weight[0])
    op.tie(x, w_ih[1])
    out = hidden
    if projection is not None:
        op.tie(hidden, projection[1])
        op.consumes(projection[1])
        op.produces(projection[0])
        cost(op, *steps, projection[0], projection[1])
        out = projection[0]
    op.tie(out, w_hh[1])
    for weight in (w_ih, w_hh):
        op.produces(weight[0])
        op.consumes(weight[1])
        cost(op, *steps, weight[0], weight[1])
    return hidden, out


def _layers(op, x: Vector, params: list[Operand], states: list[Operand], gates: int, layers: int, bidirectional: bool,
            steps: list[Vector]) -> Vector:
    """All layers; gives the last one's outputs."""
    directions = 2 if bidirectional else 1
    each = len(params) // (layers * directions)
    for layer in range(layers):
        outs = []
        for k in range(directions):
            at = (layer * directions + k) * each
            hidden, out = direction(op, x, params[at:at + each], gates, steps)
            outs.append(out)
            for state, units in zip(states, (out, hidden), strict=False):
                op.tie(units, state[-1])
        x = np.concatenate(outs)
    return x


def _run(op, x: Operand, hx, params, num_layers: int, bidirectional: bool) -> list[Vectors]:
    gates = GATES[op.name.removeprefix("aten::")]
    states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
    steps = list(x.vectors[:-1])
    last = _layers(op, x[-1], list(params), states, gates, num_layers, bidirectional, steps)
    return [(*steps, last), *(state.vectors for state in states)]


@register_rule("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def recurrent(op, x, *args, **kwargs):
    """``input`` overloads take a padded batch, ``data`` overloads a packed one with its batch sizes."""
    if op.overload == "data":
        _, hx, params, has_biases, num_layers, dropout, train, bidirectional = args
    else:
        hx, params, has_biases, num_layers, dropout, train, bidirectional = args[:7]
    return _run(op, x, hx, params, num_layers, bidirectional)


@register_rule("aten::lstm_cell")
def lstm_cell(op, x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step; gives the next hidden state and the next cell state."""
    weights = [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
    hidden, out = direction(op, x[-1], weights, 4, list(x.vectors[:-1]))
    for state in hx:
        op.tie(hidden, state[-1])
    return [(*x.vectors[:-1], out), (*x.vectors[:-1], hidden)]


@register_rule("aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell")
def cell(op, x, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    """One step; gives the next hidden state."""
    gates = GATES[op.name.removeprefix("aten::").removesuffix("_cell")]
    weights = [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
    hidden, out = direction(op, x[-1], weights, gates, list(x.vectors[:-1]))
    op.tie(hidden, hx[-1])
    return (*x.vectors[:-1], out)


@register_rule("aten::_pack_padded_sequence")
def pack(op, x, lengths, batch_first):
    """Batch and time become one dimension."""
    for vector in (*x.vectors[:2], *lengths.vectors):
        op.freeze(vector, "sequences are packed")
    data, sizes = op.shapes
    return [(op.fixed(data[0]), *x.vectors[2:]), (op.fixed(sizes[0]),)]


@register_rule("aten::_pad_packed_sequence")
def unpack(op, data, batch_sizes, batch_first, padding_value, total_length):
    """The reverse."""
    for vector in (data[0], *batch_sizes.vectors):
        op.freeze(vector, "sequences are packed")
    padded, lengths = op.shapes
    return [(op.fixed(padded[0]), op.fixed(padded[1]), *data.vectors[1:]), (op.fixed(lengths[0]),)]
