"""Movement against torch itself: every element is labelled by where it comes from, and the rule must know."""

import numpy as np
import pytest
import torch
from harness import Bench, kept

# Operator, shape, dim that carries units, arguments, and how many independent channels are left of it.
CASES = [
    ("slice", (2, 8, 3), 1, (1, 2, 7, 2), 8), ("slice", (2, 8, 3), 1, (1, -3, 99, 1), 8),
    ("narrow", (2, 8, 3), 1, (1, 2, 4), 8), ("select", (2, 8, 3), 1, (1, -2), 7), ("unbind", (2, 8, 3), 1, (1,), 0),
    ("unbind", (2, 8, 3), 1, (2,), 8), ("split", (2, 8, 3), 1, (3, 1), 8), ("chunk", (2, 8, 3), 1, (3, 1), 8),
    ("split_with_sizes", (2, 8, 3), 1, ([1, 5, 2], 1), 8), ("tensor_split", (2, 8, 3), 1, (3, 1), 8),
    ("flip", (2, 8, 3), 1, ([1, 2],), 8), ("roll", (2, 8, 3), 1, ([3], [1]), 8), ("roll", (2, 8, 3), 1, ([3],), 0),
    ("repeat", (2, 4, 3), 1, ([2, 3, 1],), 4), ("repeat", (4, 3), 0, ([2, 2, 2],), 4), ("tile", (2, 4), 1, ([2],), 4),
    ("repeat_interleave", (2, 4, 3), 1, (2, 1), 4), ("constant_pad_nd", (2, 4, 3), 1, ([1, 1, 2, 1], -1.0), 4),
    ("constant_pad_nd", (2, 4, 3), 1, ([0, 0, -1, 2], -1.0), 4), ("pad", (2, 4, 3), 1, ([1, 1], "reflect"), 4),
    ("reflection_pad2d", (2, 5, 5), 2, ([2, 1, 0, 0],), 5), ("replication_pad1d", (2, 5, 5), 2, ([2, 1],), 5),
    ("pixel_shuffle", (1, 8, 2, 2), 1, (2,), 2), ("pixel_unshuffle", (1, 3, 4, 4), 1, (2,), 3),
    ("channel_shuffle", (1, 8, 2, 2), 1, (2,), 4), ("channel_shuffle", (1, 8, 2, 2), 1, (1,), 8),
    ("im2col", (1, 3, 4, 4), 1, ([2, 2], [1, 1], [0, 0], [2, 2]), 3),
    ("col2im", (1, 12, 4), 1, ([4, 4], [2, 2], [1, 1], [0, 0], [2, 2]), 3),
    ("unfold", (2, 4, 6), 1, (2, 2, 2), 4), ("unfold", (2, 4, 6), 2, (2, 2, 2), 2),
    ("unfold", (2, 4, 6), 2, (2, 6, 1), 6), ("unfold", (2, 4, 6), 2, (2, 4, 2), 0),
    ("unfold", (2, 4, 7), 2, (2, 2, 2), 0), ("rot90", (4, 6, 6), 0, (1, [0, 2]), 4),
    ("rot90", (4, 6, 5), 1, (3, [1, 2]), 6), ("rot90", (4, 6, 5), 1, (2, [-1, 1]), 6),
    ("diagonal", (3, 4, 4), 0, (0, 1, 2), 3), ("diagonal", (3, 4, 4), 1, (0, 1, 2), 0),
    ("squeeze", (2, 4, 1), 1, (2,), 4), ("unsqueeze", (2, 4), 1, (0,), 4), ("view", (2, 4, 6), 1, ([2, 24],), 4),
    ("unflatten", (2, 12), 1, (1, [4, 3]), 3), ("permute", (2, 4, 6), 1, ([2, 0, 1],), 4),
    ("as_strided", (4, 4), 0, ([2, 4], [4, 1]), 0), ("tril", (3, 4, 4), 0, (), 3), ("tril", (3, 4, 4), 1, (), 0),
]


@pytest.mark.parametrize(("name", "shape", "dim", "args", "channels"), CASES)
def test_what_stays_comes_from_what_stays(name, shape, dim, args, channels):
    labels = torch.arange(1.0, 1 + torch.tensor(shape).prod().item()).view(shape)
    result = getattr(torch.ops.aten, name)(labels, *args)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    bench = Bench()
    x = bench.channels(shape, dim)
    shapes = [tuple(r.shape) for r in results]
    outs = bench.run(name, shapes if isinstance(result, (tuple, list)) else shapes[0], x, *args)
    outs = outs if isinstance(outs, list) else [outs]
    closure = bench.closure
    assert len(set(closure.of(x[dim]).tolist()) - {-1}) == channels
    rng = np.random.default_rng(0)
    for _ in range(6):
        gone = {int(c) for v in (x[dim], *(v for out in outs for v in out.vectors))
                for c in closure.of(v) if c >= 0 and rng.random() < 0.5}
        stays = labels.numpy()[np.ix_(*(kept(closure, v, gone) for v in x.vectors))]
        for out, real in zip(outs, results, strict=True):
            picked = real.numpy()[np.ix_(*(kept(closure, v, gone) for v in out.vectors))]
            assert set(picked[picked > 0].ravel()) <= set(stays.ravel())


def test_cat_lines_vectors_up_and_ties_the_rest():
    bench = Bench()
    a, b = bench.free(2, 3), bench.free(2, 4)
    out = bench.run("cat", (2, 7), [a, b], 1)
    assert (out[1] == np.concatenate([a[1], b[1]])).all() and bench.tied(a[0], b[0])


def test_cat_skips_the_legacy_empty_tensor():
    bench = Bench()
    a = bench.free(2, 3)
    assert bench.tied(bench.run("cat", (2, 3), [bench.fixed(0), a], -1)[1], a[1])


def test_stack_ties_and_adds_a_position():
    bench = Bench()
    a, b = bench.free(4), bench.free(4)
    out = bench.run("stack", (4, 2), [a, b], -1)
    assert bench.tied(a[0], b[0]) and bench.frozen(out[1]) and bench.tied(out[0], a[0])


def test_glu_ties_its_halves():
    bench = Bench()
    x = bench.free(2, 8)
    out = bench.run("glu", (2, 4), x, -1)
    assert bench.of(x[1]) == [0, 1, 2, 3] * 2 and bench.tied(out[1], x[1][:4])


def test_a_single_index_that_is_expanded_has_any_length_and_stays_itself():
    bench = Bench()
    x = bench.free(2, 1)
    out = bench.run("expand", (2, 6), x, [2, 6])
    assert bench.frozen(x[1]) and bench.of(out[1]) == list(range(6)) and out[0] is x[0]


def test_expand_as_takes_the_length_of_the_other():
    bench = Bench()
    x, other = bench.fixed(2, 1), bench.free(2, 6)
    assert bench.run("expand_as", (2, 6), x, other)[1] is other[1]


def test_padding_around_units_may_go_and_padded_positions_may_not():
    bench = Bench()
    x = bench.channels((2, 4, 4), 1)
    out = bench.run("constant_pad_nd", (2, 7, 6), x, [1, 1, 1, 2])
    assert bench.of(out[1]) == list(range(7)) and bench.frozen(out[2])


@pytest.mark.parametrize(("start", "expected"), [(2, [2, 3]), (-2, [2, 3])])
def test_narrow_counts_from_either_end(start, expected):
    bench = Bench()
    x = bench.free(4)
    assert (bench.run("narrow", (2,), x, 0, start, 2)[0] == x[0][expected]).all()


@pytest.mark.parametrize(("name", "args", "shape"), [("slice_scatter", (1, 3, 5), (2, 2)),
                                                     ("select_scatter", (1, 3), (2,))])
def test_scattered_slices_hold_their_dimension_and_tie_the_others(name, args, shape):
    bench = Bench()
    x, src = bench.free(2, 6), bench.free(*shape)
    out = bench.run(name, (2, 6), x, src, *args)
    assert bench.frozen(x[1]) and bench.tied(x[0], src[0]) and out[1] is x[1]


def test_repeat_interleave_by_a_tensor_holds_the_dimension():
    bench = Bench()
    x = bench.free(2, 3)
    bench.run("repeat_interleave", (2, 4), x, bench.index([1, 2, 1]), 1)
    assert bench.frozen(x[1]) and not bench.frozen(x[0])
