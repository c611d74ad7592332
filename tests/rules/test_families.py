"""Elementwise operators, reductions, normalisations, gathers, positions and constants."""

from dataclasses import replace

import numpy as np
import pytest
from harness import Bench

from fxprune.ir.policy import Policy
from fxprune.rules.registry import RULES, rule_for


def test_elementwise_operators_tie_from_the_right():
    bench = Bench()
    x, y = bench.free(2, 3, 4), bench.free(3, 1)
    out = bench.run("add", (2, 3, 4), x, y, alpha=2)
    assert out[0] is x[0] and bench.tied(x[1], y[0]) and bench.frozen(y[1]) and not bench.frozen(x[2])
    assert bench.why(y[1]) == "its single index is broadcast over a dimension"


def test_a_gate_that_is_broadcast_over_channels_does_not_hold_them():
    bench = Bench()
    x, gate = bench.channels((2, 8, 4, 4), 1), bench.channels((2, 1, 4, 4), 1)
    out = bench.run("mul", (2, 8, 4, 4), x, gate)
    assert out[1] is x[1] and not bench.frozen(x[1]) and bench.frozen(gate[1])


def test_where_with_one_argument_is_no_elementwise_operator():
    bench = Bench()
    x = bench.free(3)
    bench.run("where", [(2,)], x)
    assert bench.why(x[0]) == "the length of where(condition) depends on the data"


def test_prelu_slopes_belong_to_dim_one():
    bench = Bench()
    x, slopes = bench.free(2, 3, 4), bench.param(3)
    bench.run("prelu", (2, 3, 4), x, slopes)
    assert bench.tied(x[1], slopes[0]) and not bench.frozen(x[2])


def test_conversions_take_only_the_dtype_of_the_other_tensor():
    bench = Bench()
    x, other = bench.free(2), bench.free(5)
    assert bench.run("to", (2,), x, other)[0] is x[0] and not bench.frozen(other[0])


def test_variants_share_the_record_of_their_base():
    assert rule_for("aten::relu_") is rule_for("aten::relu") and rule_for("aten::__iand__") is not None
    assert rule_for("aten::no_such_operator") is None


@pytest.mark.parametrize(("dims", "keepdim", "shape"), [
    ([1], False, (2, 4)), (1, False, (2, 4)), ([1], True, (2, 1, 4)), ([0, -1], False, (3,)), (None, False, ()),
    ([], False, ())])
def test_reductions_drop_their_dims_and_freeze_nothing(dims, keepdim, shape):
    bench = Bench()
    x = bench.free(2, 3, 4)
    bench.run("mean", shape, x, dims, keepdim)
    assert not any(bench.frozen(v) for v in x.vectors) and rule_for("aten::mean").mixes


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "argmax", "sort", "cummax", "argsort"])
def test_what_names_or_weighs_positions_freezes_them(name):
    bench = Bench()
    x = bench.free(2, 3)
    shape = (2,) if name == "argmax" else (2, 3)
    outputs = [shape, shape] if name in ("sort", "cummax") else shape
    bench.run(name, outputs, x, 1)
    assert bench.frozen(x[1]) and not bench.frozen(x[0])


def test_a_maximum_with_positions_freezes_and_one_of_two_tensors_ties():
    bench = Bench()
    x, y = bench.free(2, 3), bench.free(2, 3)
    bench.run("max", (2, 3), x, y)
    assert bench.tied(x[1], y[1])
    bench.run("max", [(2,), (2,)], x, 1)
    assert bench.frozen(x[1]) and not bench.frozen(x[0])


@pytest.mark.parametrize("name", ["max", "min", "median", "nanmedian"])
def test_a_maximum_whose_positions_nobody_reads_is_one_over_what_is_kept(name):
    bench = Bench()
    x = bench.free(2, 6)
    bench.run(name, [(2,), (2,)], x, 1, unread=(1,))
    assert bench.of(x[1]) == [0, 1, 2, 3, 4, 5]
    bench.run(name, [(2,), (2,)], x, 1, unread=(0,))
    assert bench.why(x[1]) == "its positions are the result"


def test_batch_norm_ties_its_parameters_with_dim_one():
    bench = Bench()
    x, params = bench.free(2, 3, 4, 4), [bench.param(3) for _ in range(4)]
    bench.run("batch_norm", (2, 3, 4, 4), x, *params, False, 0.1, 1e-5, True)
    assert all(bench.tied(x[1], p[0]) for p in params) and rule_for("aten::batch_norm").mixes(x)
    assert not rule_for("aten::batch_norm").mixes(bench.channels((2, 3, 4, 4), 1))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_layer_norm_ties_the_last_dims(name):
    bench = Bench()
    x, w = bench.free(2, 3, 4), bench.param(3, 4)
    bench.run(name, (2, 3, 4), x, [3, 4], w)
    assert bench.tied(x[1], w[0]) and bench.tied(x[2], w[1]) and not bench.frozen(x[0])


def test_layer_norm_shrinks_its_shape():
    args, _ = rule_for("aten::layer_norm").shrink(lambda i, d: np.array([True, False, True]), ("x", [3], "w"), {})
    assert args == ("x", [2], "w")


@pytest.mark.parametrize(("policy", "groups", "expected"), [
    ("within", 2, [0, 1, 2, 0, 1, 2]), ("whole", 2, [0, 0, 0, 1, 1, 1]), ("within", 1, list(range(6))),
    ("within", 6, list(range(6)))])
def test_group_norm_keeps_equal_groups(policy, groups, expected):
    bench = Bench(Policy(grouped=policy))
    x, w = bench.channels((2, 6, 4), 1), bench.param(6)
    out = bench.run("group_norm", (2, 6, 4), x, groups, w)
    assert bench.of(x[1]) == expected and bench.tied(x[1], w[0]) and bench.tied(out[1], x[1])


def test_group_norm_counts_the_groups_that_are_left():
    shrink = rule_for("aten::group_norm").shrink
    half, whole = np.array([True, False] * 2), np.array([True, True, False, False])
    assert shrink(lambda i, d: half, ("x", 2), {})[0] == ("x", 2)
    assert shrink(lambda i, d: whole, ("x", 2), {})[0] == ("x", 1)


def test_a_known_index_moves_channels():
    bench = Bench()
    x = bench.free(2, 5)
    out = bench.run("index", (2, 3), x, [None, bench.index([4, 0, 2])])
    assert (out[1] == x[1][[4, 0, 2]]).all() and not bench.frozen(x[1])
    mask = type(x)(bench.param(5).vectors, np.array([True, False, False, True, False]), True)
    out = bench.run("index", (2, 2), x, [None, mask])
    assert (out[1] == x[1][[0, 3]]).all() and bench.tied(x[1], mask[0])


def test_an_index_buffer_shrinks_with_what_it_fetches():
    bench = Bench()
    x, buffer = bench.free(2, 5), bench.param(3)
    index = type(x)(buffer.vectors, np.array([4, 0, 2]), True)
    out = bench.run("index_select", (2, 3), x, 1, index)
    assert bench.tied(out[1], index[0])


def test_unknown_indices_freeze_what_they_address():
    bench = Bench()
    x = bench.free(2, 5, 3)
    out = bench.run("index", (2, 7, 3), x, [None, bench.fixed(7)])
    assert bench.frozen(x[1]) and out[0] is x[0] and out[2] is x[2]


def test_tables_are_looked_up_by_rows():
    bench = Bench()
    table = bench.param(5, 3)
    out = bench.run("index", (4, 3), table, [bench.index([0, 1, 1, 4])])
    assert bench.frozen(table[0]) and out[1] is table[1]


@pytest.mark.parametrize(("indices", "shape"), [
    (lambda b: [b.index([0, 1]), b.index([1, 2])], (2, 4)),
    (lambda b: [b.index([0, 1]), None, b.index([1, 2])], (2, 3)),
    (lambda b: [None, b.index([[0, 1], [1, 2]])], (2, 2, 2, 4)), (lambda b: [b.mask(2, 3)], (5, 4)),
    (lambda b: [None, b.fixed(2, 3)], (2, 2, 3, 4))])
def test_points_are_positions(indices, shape):
    bench = Bench()
    x = bench.free(2, 3, 4)
    given = indices(bench)
    bench.run("index", shape, x, given)
    addressed = [d for d, i in enumerate(given) if i is not None]
    assert all(bench.frozen(x[d]) for d in addressed) and not all(bench.frozen(v) for v in x.vectors)


def test_embedding_produces_its_columns():
    bench = Bench()
    table = bench.param(10, 4)
    out = bench.run("embedding", (2, 3, 4), table, bench.fixed(2, 3))
    assert out[2] is table[1] and bench.produced() == [table[1]] and bench.frozen(table[0])


def test_gather_and_scatter_hold_one_dimension():
    bench = Bench()
    x, index = bench.free(2, 3), bench.free(2, 3)
    bench.run("gather", (2, 3), x, 1, index)
    assert bench.frozen(x[1]) and bench.tied(x[0], index[0])
    y, src = bench.free(2, 3), bench.free(2, 3)
    bench.run("scatter", (2, 3), y, 1, index, src)
    assert bench.frozen(y[1]) and bench.tied(y[0], src[0])


def test_writing_points_freezes_them_and_ties_the_rest():
    bench = Bench()
    x, values = bench.free(5, 3), bench.free(2, 3)
    bench.run("index_put", (5, 3), x, [bench.index([0, 2])], values)
    assert bench.frozen(x[0]) and bench.tied(x[1], values[1])


def test_a_mask_covers_its_own_dims_whatever_it_holds():
    bench = Bench()
    x, values = bench.free(2, 5, 3), bench.free(3)
    bench.run("index_put", (2, 5, 3), x, [bench.mask(2, 5)], values)
    assert bench.frozen(x[0]) and bench.frozen(x[1]) and bench.tied(x[2], values[0])
    x = bench.free(2, 5, 3)
    out = bench.run("index", (7, 3), x, [bench.mask(2, 5)])
    assert bench.frozen(x[0]) and bench.frozen(x[1]) and out[1] is x[2] and not bench.frozen(x[2])


def test_what_a_mask_selects_as_a_whole_runs_along():
    bench = Bench()
    x, source = bench.free(2, 5, 8), bench.free(7, 8)
    out = bench.run("masked_scatter", (2, 5, 8), x, bench.mask(2, 5, 1), source)
    assert bench.tied(x[2], source[1]) and out[2] is x[2] and bench.of(x[2]) == list(range(8))
    assert all(bench.frozen(v) for v in (x[0], x[1], source[0]))
    expanded = replace(bench.free(2, 5, 8), is_mask=True, repeated=frozenset({2}))
    bench.run("masked_scatter", (2, 5, 8), x, expanded, source)
    assert bench.tied(expanded[2], x[2]) and bench.frozen(expanded[1])
    for mask, values in ((bench.mask(2, 5, 8), bench.free(7, 8)), (bench.mask(2, 5, 1), bench.free(56))):
        y = bench.free(2, 5, 8)
        bench.run("masked_scatter", (2, 5, 8), y, mask, values)
        assert bench.why(y[2]) == bench.why(values[-1]) == "masked_scatter reads positions from the data"


def test_an_index_is_broadcast_over_what_it_is_taken_along():
    bench = Bench()
    x, index = bench.free(4, 8, 6), bench.fixed(1, 1, 6)
    out = bench.run("take_along_dim", (4, 8, 6), x, index, 2)
    assert bench.frozen(x[2]) and out[0] is x[0] and out[1] is x[1] and bench.of(x[1]) == list(range(8))


@pytest.mark.parametrize("name", ["index_copy", "index_add"])
def test_slices_written_to_known_places_move_like_any_others(name):
    bench = Bench()
    x, source = bench.free(2, 5), bench.free(2, 3)
    bench.run(name, (2, 5), x, 1, bench.index([4, 0, 2]), source)
    assert bench.tied(x[1][[4, 0, 2]], source[1]) and bench.tied(x[0], source[0]) and not bench.frozen(x[1])
    buffer = type(x)(bench.param(3).vectors, np.array([3, 1, 2]), True)
    bench.run(name, (2, 5), x, 1, buffer, source)
    assert bench.tied(buffer[0], source[1])
    y, source = bench.free(2, 5), bench.free(2, 3)
    bench.run(name, (2, 5), y, 1, bench.fixed(3), source)
    assert bench.frozen(y[1]) and bench.frozen(source[1]) and bench.tied(y[0], source[0])


def test_an_identity_loses_rows_and_columns_alike():
    bench = Bench()
    square = bench.run("eye", (4, 4), 4)
    assert bench.of(square[0]) == bench.of(square[1]) == [0, 1, 2, 3] and bench.tied(square[0], square[1])
    wide = bench.run("eye", (2, 3), 2, 3)
    assert bench.tied(wide[0], wide[1][:2]) and not bench.tied(wide[1][2:], wide[1][:1])


def test_positions_that_a_window_slides_over():
    bench = Bench()
    x = bench.free(2, 3, 8, 8)
    out = bench.run("max_pool2d", (2, 3, 8, 4), x, [1, 2], [1, 2])
    assert out[1] is x[1] and out[2] is x[2] and bench.frozen(x[3]) and bench.frozen(out[3])


@pytest.mark.parametrize("name", ["upsample_nearest2d", "upsample_bilinear2d", "adaptive_avg_pool2d"])
def test_resampling_hands_channels_on(name):
    bench = Bench()
    x = bench.channels((2, 3, 8, 8), 1)
    assert bench.run(name, (2, 3, 4, 4), x, [4, 4])[1] is x[1]


def test_constants_may_shrink_and_ranges_may_not():
    bench = Bench()
    assert bench.of(bench.run("zeros", (1, 4), [1, 4])[1]) == [0, 1, 2, 3]
    assert bench.frozen(bench.run("arange", (4,), 4)[0])
    x = bench.free(2, 3)
    assert bench.run("randn_like", (2, 3), x)[1] is x[1]


def test_matrix_functions_hold_matrices_and_let_batches_be():
    bench = Bench()
    x = bench.free(2, 4, 4)
    out = bench.run("linalg_inv", (2, 4, 4), x)
    assert out[0] is x[0] and bench.frozen(x[1]) and bench.frozen(x[2])
    y = bench.free(2, 4, 6)
    out = bench.run("fft_rfft2", (2, 4, 4), y)
    assert out[0] is y[0] and bench.frozen(y[1]) and bench.frozen(y[2])


def test_names_are_qualified_and_unique():
    assert all("::" in name for name in RULES) and len(RULES) > 500
