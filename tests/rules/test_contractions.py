"""Contractions: ties, roles, cost, and what grouped ones leave free."""

from types import SimpleNamespace

import numpy as np
import pytest
from harness import Bench

from fxprune.ir.policy import Policy
from fxprune.rules.einsum import parse
from fxprune.rules.registry import rule_for


def conv(bench, shape, x, weight, bias=None, name="conv2d", **kwargs):
    return bench.run(name, shape, x, weight, bias, **kwargs)


def test_convolution_reads_dim_one_and_produces_dim_zero():
    bench = Bench()
    x, w, b = bench.channels((2, 4, 6, 6), 1), bench.param(8, 4, 3, 3), bench.param(8)
    out = conv(bench, (2, 8, 4, 4), x, w, b)
    assert bench.tied(x[1], w[1]) and bench.tied(out[1], b[0]) and out[1] is w[0]
    assert bench.produced() == [w[0]] and bench.consumed() == [w[1]]
    assert bench.macs() == 2 * 16 * 9 * 4 * 8
    assert bench.why(w[2]) == "a position in the kernel"


def test_transposed_convolution_counts_positions_at_the_input():
    bench = Bench()
    x, w = bench.channels((2, 4, 6, 6), 1), bench.param(4, 8, 2, 2)
    out = conv(bench, (2, 8, 12, 12), x, w, name="conv_transpose2d", stride=[2, 2])
    assert bench.tied(x[1], w[0]) and out[1] is w[1] and bench.macs() == 2 * 36 * 4 * 4 * 8


def test_unbatched_convolution():
    bench = Bench()
    x, w = bench.channels((4, 9), 0), bench.param(8, 4, 3)
    out = conv(bench, (8, 7), x, w, name="conv1d")
    assert bench.tied(x[0], w[1]) and out[0] is w[0]


@pytest.mark.parametrize(("name", "at"), [("conv2d", 6), ("conv_transpose2d", 6), ("convolution", 8)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_the_groups_that_are_left_are_counted_at_the_channels(name, at, batch):
    kept = {-3: np.array([True, True, False, False, True, True]), -2: np.ones(5, bool), -1: np.ones(7, bool)}
    site = SimpleNamespace(value=lambda v: v, size=lambda given, left: left, shape=lambda arg: (6, 2, 3, 3),
                           masks=lambda arg: [*(np.ones(n, bool) for n in batch), *kept.values()])
    args = ("x", "w", *[None] * (at - 2), 3)
    rule = rule_for(f"aten::{name}")
    assert rule.literals(site, name, args, {}) == (name, (*args[:at], 2), {})
    tensors = SimpleNamespace(dim=lambda: len(batch) + 3), SimpleNamespace(dim=lambda: 4)
    shrunk, _ = rule.shrink(lambda i, dim: kept[dim - len(batch) - 3], (*tensors, *args[2:]), {})
    assert shrunk[at] == 2


def test_positions_pass_a_kernel_of_length_one():
    bench = Bench()
    x, w = bench.free(2, 4, 6), bench.param(8, 4, 1)
    assert conv(bench, (2, 8, 6), x, w, name="conv1d")[2] is x[2]
    assert bench.frozen(conv(bench, (2, 8, 3), x, w, name="conv1d", stride=[2])[2]) and bench.frozen(x[2])


def grouped(policy, shape_in, weight, groups, name="conv2d", out=None, choices=None):
    bench = Bench(Policy(grouped=policy), choices or {})
    x, w = bench.channels((2, shape_in, 4, 4), 1), bench.param(*weight, 1, 1)
    return bench, x, w, conv(bench, (2, out or weight[0], 4, 4), x, w, name=name, groups=groups)


def test_grouped_convolution_keeps_the_same_positions_of_every_group():
    bench, x, w, out = grouped("within", 6, (4, 3), 2)
    assert bench.of(x[1]) == [0, 1, 2, 0, 1, 2] and bench.of(out[1]) == [0, 1, 0, 1] and bench.tied(out[1], w[0])


def test_grouped_convolution_keeps_whole_groups():
    bench, x, w, out = grouped("whole", 6, (4, 3), 2)
    assert bench.of(x[1]) == [0, 0, 0, 1, 1, 1] and bench.of(out[1]) == [0, 0, 1, 1] and bench.frozen(w[1])
    assert bench.closure.of(x[1])[0] == bench.closure.of(out[1])[0]


@pytest.mark.parametrize("policy", ["within", "whole"])
def test_depthwise_ties_input_and_output(policy):
    bench, x, w, out = grouped(policy, 4, (8, 1), 4)
    assert bench.of(out[1]) == [0, 0, 1, 1, 2, 2, 3, 3] and bench.tied(out[1][::2], x[1])
    bench, x, w, out = grouped(policy, 4, (4, 1), 4)
    assert bench.tied(out[1], x[1]) and not bench.notes.options


def test_depthwise_with_multipliers_can_lose_multipliers_instead():
    bench, x, w, out = grouped("within", 4, (8, 1), 4, choices={(0, 0): 1})
    assert bench.frozen(x[1]) and bench.of(out[1]) == [0, 1] * 4


@pytest.mark.parametrize(("policy", "first", "second"), [("within", [0, 1, 2] * 2, [0, 1] * 2),
                                                         ("whole", [0] * 3 + [1] * 3, [0, 0, 1, 1])])
def test_grouped_transposed_convolution(policy, first, second):
    bench, x, w, out = grouped(policy, 6, (6, 2), 2, name="conv_transpose2d", out=4)
    assert bench.of(x[1]) == first and bench.tied(x[1], w[0]) and bench.of(out[1]) == second


def test_linear_has_a_cost_and_roles():
    bench = Bench()
    x, w, b = bench.channels((2, 5, 6), 2), bench.param(8, 6), bench.param(8)
    out = bench.run("linear", (2, 5, 8), x, w, b)
    assert bench.tied(x[2], w[1]) and bench.tied(out[2], b[0]) and bench.macs() == 2 * 5 * 6 * 8


def test_units_beside_the_contraction_are_factors_of_its_cost():
    bench = Bench()
    bench.run("linear", (2, 5, 8), bench.channels((2, 5, 6), 1), bench.param(8, 6))
    (_, term), = bench.notes.contractions
    assert term.positions == 2 and sorted(map(len, term.factors)) == [5, 6, 8]


@pytest.mark.parametrize(("a", "b", "out"), [((3, 4), (4, 5), (3, 5)), ((2, 3, 4), (4, 5), (2, 3, 5)),
                                             ((4,), (4, 5), (5,)), ((3, 4), (4,), (3,)), ((4,), (4,), ()),
                                             ((7, 1, 3, 4), (2, 4, 5), (7, 2, 3, 5))])
def test_matmul_of_all_ranks(a, b, out):
    bench = Bench()
    x, y = bench.free(*a), bench.param(*b)
    bench.run("matmul", out, x, y)
    assert bench.tied(x[-1], y[0] if len(b) == 1 else y[-2])
    assert len(bench.consumed()) == 1 and len(bench.produced()) == (len(b) > 1)
    assert bench.macs() == int(np.prod(out)) * 4


def test_only_products_of_activations_mix():
    bench = Bench()
    x, w = bench.free(3, 4), bench.param(4, 4)
    assert rule_for("aten::matmul").mixes(x, x) and not rule_for("aten::matmul").mixes(x, w)
    assert rule_for("aten::linear").mixes(x, x) and not rule_for("aten::linear").mixes(x, w)


def test_addmm_ties_the_bias_with_what_is_produced():
    bench = Bench()
    bias, x, w = bench.param(5), bench.free(3, 4), bench.param(4, 5)
    out = bench.run("addmm", (3, 5), bias, x, w)
    assert bench.tied(out[1], bias[0]) and bench.tied(x[1], w[0])


def test_tensordot_and_bilinear():
    bench = Bench()
    x, w = bench.free(2, 3, 4), bench.param(3, 4, 5)
    out = bench.run("tensordot", (2, 5), x, w, [1, 2], [0, 1])
    assert bench.tied(x[2], w[1]) and out[1] is w[2]
    a, b, v = bench.free(2, 3), bench.free(2, 4), bench.param(6, 3, 4)
    out = bench.run("bilinear", (2, 6), a, b, v)
    assert bench.tied(a[1], v[1]) and bench.tied(b[1], v[2]) and bench.tied(a[0], b[0]) and out[1] is v[0]


@pytest.mark.parametrize(("equation", "ranks", "terms", "output"), [
    ("ij,jk->ik", [2, 2], [["i", "j"], ["j", "k"]], ["i", "k"]),
    ("ba,cb", [2, 2], [["b", "a"], ["c", "b"]], ["a", "c"]),
    ("ii->i", [2], [["i", "i"]], ["i"]), ("a...,b...->...", [3, 2], [["a", "...1", "...0"], ["b", "...0"]],
                                          ["...1", "...0"]),
    (" b ... i , ... i ", [3, 2], [["b", "...0", "i"], ["...0", "i"]], ["...0", "b"]),
])
def test_equations_are_read_as_numpy_reads_them(equation, ranks, terms, output):
    assert parse(equation, ranks) == (terms, output)
    letters = {label: n for n, label in enumerate(sorted({x for t in terms for x in t}), 2)}
    arrays = [np.ones([letters[label] for label in t]) for t in terms]
    if all(len(set(t)) == len(t) for t in terms):
        assert np.einsum(equation, *arrays).shape == tuple(letters[label] for label in output)


def test_einsum_ties_letters_and_names_the_weight():
    bench = Bench()
    x, w = bench.free(2, 3, 4), bench.param(5, 4)
    out = bench.run("einsum", (2, 3, 5), "bnc,oc->bno", [x, w])
    assert bench.tied(x[2], w[1]) and out[2] is w[0] and bench.produced() == [w[0]] and bench.consumed() == [w[1]]
    assert bench.macs() == 2 * 3 * 4 * 5


def test_einsum_freezes_diagonals_and_single_broadcast_indices():
    bench = Bench()
    x = bench.free(4, 4)
    bench.run("einsum", (4,), "ii->i", [x])
    a, b = bench.free(1, 3), bench.free(4, 3)
    out = bench.run("einsum", (4,), "ij,ij->i", [a, b])
    assert bench.frozen(x[0]) and bench.frozen(a[0]) and out[0] is b[0] and bench.tied(a[1], b[1])


def attention(bench, q, k, v, mask=None, **kwargs):
    return bench.run("scaled_dot_product_attention", (2, 3, 5, 6), q, k, v, mask, **kwargs)


def test_attention_ties_queries_and_keys_and_lets_values_be():
    bench = Bench()
    q, k, v = bench.free(2, 3, 5, 4), bench.free(2, 3, 7, 4), bench.free(2, 3, 7, 6)
    out = attention(bench, q, k, v)
    assert bench.tied(q[3], k[3]) and out[3] is v[3] and bench.tied(q[1], v[1])
    assert bench.frozen(k[2]) and bench.frozen(v[2]) and not bench.frozen(q[2])
    assert bench.macs() == 2 * 3 * 5 * 7 * 4 + 2 * 3 * 5 * 7 * 6


def test_attention_masks_run_along_with_heads():
    bench = Bench()
    q, k, v = bench.free(2, 3, 5, 4), bench.free(2, 3, 7, 4), bench.free(2, 3, 7, 6)
    mask = bench.param(3, 5, 7)
    attention(bench, q, k, v, mask)
    assert bench.tied(mask[0], q[1]) and bench.frozen(mask[2])


def test_a_causal_mask_counts_the_queries():
    bench = Bench()
    q, k, v = bench.free(2, 3, 5, 4), bench.free(2, 3, 5, 4), bench.free(2, 3, 5, 6)
    attention(bench, q, k, v, is_causal=True)
    assert bench.frozen(q[2]) and bench.why(q[2]) == "a causal mask counts positions"
    bench = Bench()
    q, k, v = bench.free(2, 3, 5, 4), bench.free(2, 3, 5, 4), bench.free(2, 3, 5, 6)
    attention(bench, q, k, v)
    assert not bench.frozen(q[2])


def test_attention_of_grouped_queries_keeps_its_heads():
    bench = Bench()
    q, k, v = bench.free(2, 3, 5, 4), bench.free(2, 1, 7, 4), bench.free(2, 1, 7, 6)
    attention(bench, q, k, v, enable_gqa=True)
    assert bench.frozen(q[1]) and bench.frozen(k[1]) and bench.tied(q[3], k[3])


def test_attention_keeps_the_scale_of_its_original_heads():
    _, kwargs = rule_for("aten::scaled_dot_product_attention").shrink(
        lambda i, dim: np.array([True, False, True, False]), (None,), {})
    assert kwargs == {"scale": 0.5}
    assert rule_for("aten::scaled_dot_product_attention").shrink(None, (None,), {"scale": 0.1})[1] == {"scale": 0.1}


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3), ("rnn_tanh", 1)])
def test_recurrent_layers_tie_gates_columns_states_and_outputs(name, gates):
    bench = Bench()
    x = bench.channels((5, 2, 3), 2)
    weights = [bench.param(gates * 4, 3), bench.param(gates * 4, 4), bench.param(gates * 4), bench.param(gates * 4)]
    states = [bench.free(1, 2, 4) for _ in range(2 if name == "lstm" else 1)]
    shapes = [(5, 2, 4), *[(1, 2, 4)] * len(states)]
    out = bench.run(name, shapes, x, states if name == "lstm" else states[0], weights, True, 1, 0.0, False, False,
                    False, overload="input")
    hidden = weights[1][1]
    assert bench.tied(weights[0][0], np.tile(hidden, gates)) and bench.tied(weights[3][0], weights[0][0])
    assert bench.tied(out[0][2], hidden) and bench.tied(states[0][2], hidden) and bench.tied(x[2], weights[0][1])
    assert bench.macs() == 5 * 2 * gates * 4 * (3 + 4)


def test_bidirectional_outputs_are_both_directions_side_by_side():
    bench = Bench()
    x = bench.channels((5, 2, 3), 2)
    weights = [bench.param(*s) for _ in range(2) for s in ((12, 3), (12, 4))]
    out = bench.run("gru", [(5, 2, 8), (2, 2, 4)], x, bench.free(2, 2, 4), weights, False, 1, 0.0, False, True, False,
                    overload="input")
    assert bench.tied(out[0][2], np.concatenate([weights[1][1], weights[3][1]]))


def test_projected_lstm_feeds_its_projection_back():
    bench = Bench()
    x = bench.channels((5, 2, 3), 2)
    w_ih, w_hh, w_hr = bench.param(16, 3), bench.param(16, 2), bench.param(2, 4)
    out = bench.run("lstm", [(5, 2, 2), (1, 2, 2), (1, 2, 4)], x, [bench.free(1, 2, 2), bench.free(1, 2, 4)],
                    [w_ih, w_hh, w_hr], False, 1, 0.0, False, False, False, overload="input")
    assert bench.tied(out[0][2], w_hh[1]) and bench.tied(w_ih[0][:4], w_hr[1]) and bench.tied(w_hr[0], out[1][2])


@pytest.mark.parametrize("name", ["aten::_grouped_mm", "transformers::grouped_mm_fallback"])
def test_experts_lose_the_same_hidden_channels(name):
    """Rows in runs, a matrix for each run: experts stay, what they read and make goes in all of them alike."""
    bench = Bench()
    rows, up, down = bench.channels((14, 8), 1), bench.param(4, 8, 6), bench.param(4, 6, 8)
    hidden = bench.run(name, (14, 6), rows, up, bench.fixed(4))
    out = bench.run(name, (14, 8), hidden, down, bench.fixed(4))
    assert bench.tied(rows[1], up[1]) and bench.tied(up[2], down[1]) and out[1] is down[2]
    assert bench.of(up[2]) == list(range(6)) and bench.frozen(up[0]) and bench.frozen(down[0])
    assert bench.produced() == [up[2], down[2]] and bench.consumed() == [up[1], down[1]]
    assert bench.macs() == 2 * 14 * 8 * 6
