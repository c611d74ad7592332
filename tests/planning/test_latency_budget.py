"""The cut by the clock: within the time, as much as fits, at the least score; prices are made up here."""

import itertools
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxprune.errors import BudgetError
from fxprune.ir.costs import Count
from fxprune.planning.budget import Budget
from fxprune.planning.latency_budget import cut_to_time
from fxprune.planning.stairs import Bound, Prices


@dataclass(frozen=True)
class Product:
    """A layer that pays for blocks of ``step`` of each of its groups."""

    groups: tuple[int, ...]
    step: int = 1
    cost: float = 1.0

    def __call__(self, widths):
        return self.cost * np.prod([-(-widths[..., group] // self.step) * self.step for group in self.groups], axis=0)


def budget(**options):
    return Budget.of(latency=0.5, **options)


def count_of(*rows):
    """A count that is a sum of coefficient · width."""
    return Count(np.array([c for c, _ in rows]), np.array([[1 + k] for k in range(len(rows))]),
                 np.array([1] + [0] * len(rows)), np.arange(1, 1 + len(rows)), np.array([g for _, g in rows]),
                 np.ones(len(rows), np.int64))


def cut(limit, terms, scores, bounds=(), **options):
    names = list(scores)
    return cut_to_time(limit, Prices(terms), budget(**options), names, {n: len(s) for n, s in scores.items()},
                       {n: np.asarray(s, float) for n, s in scores.items()}, bounds)


@st.composite
def nets(draw):
    sizes = draw(st.lists(st.integers(2, 24), min_size=1, max_size=5))
    groups = st.integers(0, len(sizes) - 1)
    pairs = draw(st.lists(st.tuples(groups, groups), min_size=1, max_size=8))
    terms = [Product(tuple(sorted({a, b})), draw(st.sampled_from((1, 4, 8)))) for a, b in pairs]
    terms += [Product((g,), draw(st.sampled_from((1, 4)))) for g in range(len(sizes))]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return sizes, terms, {f"g{i}": rng.random(size) + 0.01 for i, size in enumerate(sizes)}


@settings(max_examples=60, deadline=None)
@given(nets(), st.floats(0.15, 0.95), st.sampled_from((1, 4)))
def test_within_the_time_and_no_step_more_would_fit(net, share, round_to):
    sizes, terms, scores = net
    prices = Prices(terms)
    limit = share * prices(np.array(sizes))
    try:
        found = cut(limit, terms, scores, round_to=round_to)
    except BudgetError:
        least = np.array([round_to if size >= round_to else 1 for size in sizes])
        assert prices(least) > limit
        return
    widths = np.array([len(kept) for kept in found.kept.values()])
    assert found.seconds == pytest.approx(prices(widths)) and found.seconds <= limit * (1 + 1e-9)
    for place, size in enumerate(sizes):
        step = round_to if size >= round_to else 1
        assert size < round_to or widths[place] % round_to == 0
        wider = widths + step * (np.arange(len(sizes)) == place)
        if wider[place] <= size:
            assert prices(wider) > limit * (1 - 1e-9), f"group {place} could have {wider[place]} channels"
    for name, kept in found.kept.items():
        gone = np.setdiff1d(np.arange(len(scores[name])), kept)
        assert not len(gone) or scores[name][gone].max() <= scores[name][kept].min()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.floats(0.2, 0.9), st.integers(0, 50))
def test_where_groups_do_not_meet_it_is_the_best_cut_but_for_one_step(sizes, share, seed):
    rng = np.random.default_rng(seed)
    scores = {f"g{i}": np.sort(rng.random(size)) + 0.01 for i, size in enumerate(sizes)}
    terms = [Product((i,), cost=float(rng.integers(1, 5))) for i in range(len(sizes))]
    prices = Prices(terms)
    limit = max(share * prices(np.array(sizes)), prices(np.ones(len(sizes), np.int64)))
    relative = [score / score.mean() for score in scores.values()]

    def harm(widths):
        return sum(score[:len(score) - width].sum() for score, width in zip(relative, widths, strict=True))

    best = min(harm(widths) for widths in itertools.product(*(range(1, size + 1) for size in sizes))
               if prices(np.array(widths)) <= limit)
    found = cut(limit, terms, scores)
    widths = [len(kept) for kept in found.kept.values()]
    assert best - 1e-9 <= harm(widths) <= best + max(score.max() for score in relative) + 1e-9


def test_a_step_is_priced_over_all_layers_that_read_or_make_its_channels():
    # The same scores; b is read by three layers, and so saves more per channel.
    scores = {"a": [1.0] * 8, "b": [1.0] * 8}
    found = cut(28.0, [Product((0,)), *[Product((1,))] * 3], scores)
    assert {name: len(kept) for name, kept in found.kept.items()} == {"a": 8, "b": 6}
    assert found.seconds == 26.0


def test_neighbours_are_repriced():
    # One layer of width a · b. Its price falls with either: at first a is better, by its lower score; after it has
    # lost half, a step of a saves what it did, and one of b half as much as in the beginning.
    scores = {"a": [1.0] * 8, "b": [1.0] * 8}
    terms = [Product((0, 1)), Product((1,), cost=3.0)]
    found = cut(44.0, terms, scores)
    widths = {name: len(kept) for name, kept in found.kept.items()}
    # b saves 8 + 3 a channel, a saves 8: b goes; with b at 4, a saves only 4 and b still 11.
    assert widths == {"a": 8, "b": 4} and found.seconds == 44.0


def test_steps_that_save_nothing_are_merged_or_given_back():
    found = cut(20.0, [Product((0,), step=8), Product((1,))], {"a": [0.1] * 15 + [10.0], "b": [1.0] * 8})
    # Below 16, a's next stair is at 8: seven channels for nothing on the way there, and the fourth of b fits as well.
    assert {name: len(kept) for name, kept in found.kept.items()} == {"a": 8, "b": 8}
    assert found.seconds == 16.0 and found.dead == {"a": 7}


def test_a_step_that_nobody_demands_is_eased_in_narrow_groups():
    terms, scores = [Product((0,)), Product((1,))], {"a": np.ones(16), "b": np.ones(64)}

    def widths(eased, limit):
        found = cut_to_time(limit, Prices(terms), replace(budget(round_to=16), eased=eased), ("a", "b"),
                            {"a": 16, "b": 64}, scores)
        return {name: len(kept) for name, kept in found.kept.items()}

    assert widths(eased=True, limit=20.0) == {"a": 4, "b": 16}
    assert widths(eased=False, limit=32.0) == {"a": 16, "b": 16}
    with pytest.raises(BudgetError, match="the least that these groups reach is 3.2e"):
        widths(eased=False, limit=31.0)


def test_what_is_dead_is_so_within_bounds_as_well():
    terms, scores = [Product((0,), step=8), Product((1,))], {"a": [0.1] * 15 + [10.0], "b": [1.0] * 8}
    bounds = {"a": (Fraction(8, 16), Fraction(1)), "b": (Fraction(1), Fraction(1))}
    found = cut_to_time(20.0, Prices(terms), replace(budget(), bounds=bounds), ("a", "b"), {"a": 16, "b": 8},
                        {name: np.asarray(score) for name, score in scores.items()})
    assert {name: len(kept) for name, kept in found.kept.items()} == {"a": 8, "b": 8}
    assert found.dead == {"a": 7}


def test_round_to_min_channels_and_small_groups_last():
    scores = {"wide": np.arange(1.0, 20.0), "small": np.full(4, 0.001)}
    terms = [Product((0,)), Product((1,))]
    found = cut(14.0, terms, scores, round_to=8)
    assert {name: len(kept) for name, kept in found.kept.items()} == {"wide": 8, "small": 4}
    found = cut(10.0, terms, scores, round_to=8)
    assert {name: len(kept) for name, kept in found.kept.items()} == {"wide": 8, "small": 2}
    with pytest.raises(BudgetError, match=r"8000 ms cannot be reached: the least that these groups reach is 9000 ms"):
        cut(8.0, terms, scores, round_to=8)
    # A group that has fewer than min_channels stays whole.
    found = cut(16.0, terms, scores, min_channels=12)
    assert {name: len(kept) for name, kept in found.kept.items()} == {"wide": 12, "small": 4}


def test_bounds_besides():
    scores = {"a": [1.0] * 8, "b": [1.0] * 8}
    terms = [Product((0,)), Product((1,))]
    count = count_of((1, 0), (10, 1))
    free = cut(12.0, terms, scores)
    held = cut(12.0, terms, scores, bounds=[Bound(count, 40)])
    # b counts tenfold: it goes until a and b count 38, and a need not go at all.
    assert {name: len(kept) for name, kept in free.kept.items()} == {"a": 4, "b": 8} and free.seconds == 12.0
    assert {name: len(kept) for name, kept in held.kept.items()} == {"a": 8, "b": 3} and held.seconds == 11.0
    with pytest.raises(BudgetError, match="a count of 10 cannot be reached: the least that these groups reach is 11"):
        cut(12.0, terms, scores, bounds=[Bound(count, 10)])


def test_uniform_cuts_all_alike():
    scores = {"a": np.linspace(1, 2, 8), "b": np.full(16, 0.001)}
    found = cut(12.0, [Product((0,)), Product((1,))], scores, scope="uniform")
    assert {name: len(kept) for name, kept in found.kept.items()} == {"a": 4, "b": 8}
    with pytest.raises(BudgetError, match="cannot be reached"):
        cut(1.0, [Product((0,)), Product((1,))], scores, scope="uniform")


def test_a_layer_within_the_model_may_cost_a_share_of_what_it_costs_alone():
    prices = Prices([Product((0,))], base=3.0, scale=0.5)
    assert prices(np.array([8])) == 7.0
    found = cut_to_time(5.0, prices, budget(), ["a"], {"a": 8}, {"a": np.ones(8)})
    assert len(found.kept["a"]) == 4 and found.seconds == 5.0
