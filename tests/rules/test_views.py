"""Reshapes against brute force: what the dim vectors say must be a rectangular cut, and no cut may be missed."""

from itertools import combinations
from math import prod

import numpy as np
import pytest
from harness import Bench, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from fxprune.ir import reshapes as algebra
from fxprune.ir.policy import Policy


@st.composite
def reshapes(draw):
    """Two shapes of one product: factors of a number, grouped in two ways, with dims of length 1 strewn in."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 4]), min_size=1, max_size=5))
    target = draw(st.one_of(st.just(factors), st.permutations(factors)))

    def grouped(items):
        cuts = sorted(draw(st.sets(st.integers(1, max(len(items) - 1, 1)), max_size=3)) | {0, len(items)})
        return tuple(prod(items[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))

    return grouped(factors), grouped(target)


def random_operand(bench, shape, draw):
    """Dims with units, without, with repeated units, and with single fixed indices."""
    vectors = []
    for n in shape:
        kind = draw(st.sampled_from(["free", "free", "fixed", "mixed", "tiled"]))
        vector = bench.notes.ties.fixed(n) if kind == "fixed" else bench.notes.ties.fresh(n)
        if kind == "mixed":
            vector = np.where(np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))), -1, vector)
        if kind == "tiled" and n % 2 == 0:
            vector = np.tile(vector[:n // 2], 2) if draw(st.booleans()) else np.repeat(vector[:n // 2], 2)
        vectors.append(vector)
    return type(bench.free(1))(tuple(vectors))


@settings(max_examples=400, deadline=None)
@given(reshapes(), st.data(), st.sampled_from(["dims", "whole"]))
def test_any_removal_is_a_rectangular_cut_that_is_again_a_reshape(shapes, data, heads):
    src, dst = shapes
    choices = {(0, k): data.draw(st.integers(0, 2)) for k in range(4)}
    bench = Bench(Policy(heads=heads), choices)
    x = random_operand(bench, src, data.draw)
    out = bench.run("reshape", dst, x, dst)
    closure = bench.closure
    free = sorted({int(c) for v in (*x.vectors, *out.vectors) for c in closure.of(v) if c >= 0})
    gone = {c for c in free if data.draw(st.booleans())}
    full = np.arange(prod(src)).reshape(src)
    small = full[np.ix_(*(kept(closure, v, gone) for v in x.vectors))]
    expected = full.reshape(dst)[np.ix_(*(kept(closure, v, gone) for v in out.vectors))]
    assert small.size == expected.size
    assert (small.reshape(expected.shape) == expected).all()


def rectangular(mask):
    """Whether the kept elements are the product of kept indices of each dimension."""
    sides = [mask.any(axis=tuple(e for e in range(mask.ndim) if e != d)) for d in range(mask.ndim)]
    return bool((mask == np.stack(np.meshgrid(*sides, indexing="ij")).all(axis=0)).all())


def cuts(src, dim, dst):
    """All proper removals of indices of one dimension that leave a rectangle in the other shape (brute force)."""
    n = src[dim]
    for size in range(1, n):
        for gone in combinations(range(n), size):
            mask = np.ones(src, bool)
            mask[(slice(None),) * dim + (list(gone),)] = False
            if rectangular(mask.reshape(dst)):
                yield set(gone)


@settings(max_examples=300, deadline=None)
@given(reshapes(), st.data())
def test_no_cut_of_a_single_dimension_is_missed(shapes, data):
    src, dst = shapes
    dim = data.draw(st.integers(0, len(src) - 1))
    if src[dim] > 8 or any(g.sizes is None for g in algebra.groups(src, dst)):
        return
    found = set()
    for choice in range(4):
        bench = Bench(choices={(0, k): choice for k in range(4)})
        x = bench.channels(src, dim)
        bench.run("reshape", dst, x, dst)
        of = bench.closure.of(x[dim])
        found |= {frozenset(np.flatnonzero(of == c).tolist()) for c in set(of.tolist()) - {-1}}
    possible = [frozenset(c) for c in cuts(src, dim, dst)]
    smallest = [c for c in possible if not any(other < c for other in possible)]
    assert {c for c in found if len(c) < src[dim]} >= set(smallest)


def test_split_into_heads_follows_the_policy():
    for heads, expected in (("dims", [0, 1, 2] * 4), ("whole", [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])):
        bench = Bench(Policy(heads=heads))
        x = bench.channels((2, 5, 12), -1)
        out = bench.run("view", (2, 5, 4, 3), x, [2, 5, 4, 3])
        assert bench.of(x[2]) == expected
        assert bench.frozen(out[2]) == (heads == "dims") and bench.frozen(out[3]) == (heads == "whole")


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 6, 4), (3, 4, 4), (3, 2, 8)])
def test_packed_projections_never_give_up_one_of_the_three(shape):
    for heads, free in (("dims", 4), ("whole", 3)):
        bench = Bench(Policy(heads=heads))
        x = bench.channels((2, 5, prod(shape)), -1)
        out = bench.run("reshape", (2, 5, *shape), x, [2, 5, *shape])
        assert [d for d in range(2, 5) if not bench.frozen(out[d])] == [free]


def test_the_next_factor_is_tried_where_the_first_is_frozen():
    bench = Bench(choices={(0, 0): 1})
    x = bench.channels((2, 5, 12), -1)
    out = bench.run("view", (2, 5, 4, 3), x, [2, 5, 4, 3])
    assert bench.frozen(out[3]) and not bench.frozen(out[2])
    assert bench.notes.options[0, 0] == 2 and bench.notes.hinges[0][1] is not None


def test_channel_shuffle_prunes_the_larger_factor():
    bench = Bench()
    x = bench.channels((1, 12, 4, 4), 1)
    out = bench.run("view", (1, 2, 6, 4, 4), x, [1, 2, 6, 4, 4])
    out = bench.run("transpose", (1, 6, 2, 4, 4), out, 1, 2)
    out = bench.run("reshape", (1, 12, 4, 4), out, [1, -1, 4, 4])
    assert bench.of(x[1]) == [0, 1, 2, 3, 4, 5] * 2
    assert bench.of(out[1]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_flatten_repeats_channels_and_a_split_undoes_it_without_a_choice():
    bench = Bench()
    x = bench.channels((2, 4, 3, 3), 1)
    flat = bench.run("flatten", (2, 36), x, 1)
    assert bench.of(flat[1]) == np.repeat(range(4), 9).tolist()
    back = bench.run("view", (2, 4, 3, 3), flat, [2, 4, 3, 3])
    assert bench.tied(back[1], x[1]) and not bench.notes.options


def test_channels_last_flattening_tiles():
    bench = Bench()
    x = bench.channels((2, 3, 4, 4), 1)
    moved = bench.run("permute", (2, 4, 4, 3), x, [0, 2, 3, 1])
    assert bench.of(bench.run("reshape", (2, 48), moved, [2, -1])[1]) == [0, 1, 2] * 16


def test_a_vector_that_becomes_a_picture_keeps_its_channels():
    bench = Bench()
    x = bench.channels((2, 72), 1)
    out = bench.run("view", (2, 8, 3, 3), x, [2, 8, 3, 3])
    assert not bench.frozen(out[1]) and bench.of(x[1]) == np.repeat(range(8), 9).tolist()


def test_of_two_free_factors_one_is_kept_and_the_other_frozen_by_name():
    for choice, (kept_dim, lost) in enumerate([(2, 1), (1, 2)]):
        bench = Bench(choices={(0, 0): choice})
        x = bench.free(1, 2, 3)
        out = bench.run("reshape", (1, 6), x, [1, 6])
        assert bench.why(x[lost]).startswith("product of two free factors")
        assert not bench.frozen(x[kept_dim]) and len(set(bench.of(out[1]))) == len(x[kept_dim])


def test_a_ragged_reshape_freezes_with_a_reason():
    bench = Bench()
    x = bench.channels((5, 2, 3), 1)
    out = bench.run("reshape", (5, 3, 2), x, [5, 3, 2])
    assert bench.why(x[1]) == bench.why(out[1]) == "the reshape cuts across this dimension"


def test_a_ragged_reshape_cuts_across_no_more_than_it_must():
    """A low-rank update of a kernel, [out·k, in·k] as [out, in, k, k]: outputs are k rows, inputs cut across them."""
    bench = Bench()
    x = bench.param(5 * 3, 8 * 3)
    out = bench.run("view", (5, 8, 3, 3), x, [5, 8, 3, 3])
    assert bench.of(x[0]) == [n for n in range(5) for _ in range(3)] and bench.of(out[0]) == [0, 1, 2, 3, 4]
    assert bench.why(x[1]) == bench.why(out[1]) == "the reshape cuts across this dimension"
    bench = Bench(choices={(0, 0): 1})  # whole halves, which nothing cuts across
    halves = bench.channels((4, 3), 0)
    out = bench.run("view", (6, 2), halves, [6, 2])
    assert bench.of(halves[0]) == [0, 0, 1, 1] and bench.of(out[0]) == [0, 0, 0, 1, 1, 1]


def test_a_dropped_unit_must_stay():
    bench = Bench()
    x = bench.free(4, 1)
    bench.run("squeeze", (4,), x, 1)
    assert bench.why(x[1]) == "a dimension of length 1 is dropped" and not bench.frozen(x[0])


def test_single_units_pass_where_they_can_be_told():
    bench = Bench()
    x = bench.free(2, 1, 6)
    out = bench.run("view", (2, 1, 2, 3), x, [2, 1, 2, 3])
    assert bench.tied(out[1], x[1])


@pytest.mark.parametrize(("name", "args", "order"), [
    ("permute", ([2, 0, 1],), [2, 0, 1]), ("permute", ([-1, 0, 1],), [2, 0, 1]), ("transpose", (-1, 0), [2, 1, 0]),
    ("numpy_T", (), [2, 1, 0]), ("mT", (), [0, 2, 1]), ("movedim", (0, 2), [1, 2, 0]),
    ("movedim", ([0, 1], [2, 0]), [1, 2, 0]), ("swapaxes", (0, 1), [1, 0, 2]),
])
def test_reordering(name, args, order):
    bench = Bench()
    x = bench.free(2, 3, 4)
    out = bench.run(name, tuple(x.shape[d] for d in order), x, *args)
    assert all(out[k] is x[d] for k, d in enumerate(order))


def test_view_as_shrinks_with_the_other_tensor():
    bench = Bench()
    x, other = bench.free(2, 12), bench.free(2, 3, 4)
    out = bench.run("view_as", (2, 3, 4), x, other)
    assert not any(bench.frozen(v) for v in other.vectors[:1]) and bench.tied(out[0], other[0])


def test_groups_name_the_dims_that_belong_together():
    found = algebra.groups((2, 8, 6, 5), (2, 4, 12, 5))
    assert [(g.src, g.dst, g.sizes) for g in found] == [((0,), (0,), (2,)), ((1, 2), (1, 2), (4, 2, 6)),
                                                         ((3,), (3,), (5,))]
    with pytest.raises(ValueError, match=r"keeps the number of elements, got \(2,\) -> \(3,\)"):
        algebra.groups((2,), (3,))
