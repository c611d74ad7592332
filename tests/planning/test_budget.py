"""The cut: what is asked, what fits, and that smaller budgets take away from larger ones."""

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxprune.errors import BudgetError
from fxprune.ir.costs import Costs, Count
from fxprune.planning.budget import Budget, cut, narrowest, ranking


def chain(sizes: list[int], frozen: int = 3) -> Costs:
    """A chain of layers, each reading the one before; the last group is of frozen outputs."""
    n = len(sizes) + 1
    factors = np.arange(1, n + 1)
    terms = np.stack([np.r_[0, factors[:-1]], factors], axis=1)
    lengths = dict(base=np.r_[1, np.zeros(n, np.int64)], factor=factors, group=np.arange(n),
                   multiplicity=np.ones(n, np.int64))
    names = (*(f"g{i}" for i in range(len(sizes))), "out")
    return Costs(names, Count(np.arange(n) * 7 + 5, terms, **lengths), Count(np.full(n, 9), terms, **lengths))


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(1, 25), min_size=1, max_size=6))
    score = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1e6, allow_nan=False))
    scores = {f"g{i}": np.array(draw(st.lists(score, min_size=n, max_size=n))) for i, n in enumerate(sizes)}
    return chain(sizes), {**{f"g{i}": n for i, n in enumerate(sizes)}, "out": 3}, scores


options = st.fixed_dictionaries({"scope": st.sampled_from(["global", "uniform"]),
                                 "round_to": st.sampled_from([1, 2, 8]), "min_channels": st.integers(1, 5)})
kinds = st.sampled_from(["macs", "params"])
fractions = st.integers(1, 100).map(lambda percent: percent / 100)


def widths_of(costs, sizes, kept):
    return np.array([len(kept.get(name, range(sizes[name]))) for name in costs.groups])


@settings(deadline=None, max_examples=300)
@given(problems(), options, kinds, fractions)
def test_never_more_than_asked_and_maximal(problem, options, kind, fraction):
    costs, sizes, scores = problem
    count = getattr(costs, kind)
    budget = Budget.of(**{kind: fraction}, **options)
    before = count(widths_of(costs, sizes, {}))
    try:
        kept = cut(budget, costs, sizes, scores)
    except BudgetError:
        least = {name: range(narrowest(sizes[name], budget)) for name in scores}
        assert count(widths_of(costs, sizes, least)) > Fraction(str(fraction)) * before
        return
    widths = widths_of(costs, sizes, kept)
    assert count(widths) <= Fraction(str(fraction)) * before
    # What would go back next is, of the blocks that went last in each group, the one that stood last in the list.
    candidates = []
    for place, name in enumerate(costs.groups[:-1]):
        size, step = sizes[name], options["round_to"] if sizes[name] >= options["round_to"] else 1
        if widths[place] == (size if narrowest(size, budget) == size else size // step * step):
            continue
        order = ranking(scores[name])
        last = order[max(0, size - widths[place] - step):size - widths[place]]
        mean = scores[name].mean()
        key = (size - widths[place]) / size if options["scope"] == "uniform" else (
            scores[name][last].mean() / mean if mean else 0.0)
        candidates.append((step != options["round_to"], key, place, step))
    if candidates:
        top = max(c[:2] for c in candidates)
        near = [c for c in candidates if c[0] == top[0] and math.isclose(c[1], top[1], rel_tol=1e-9, abs_tol=1e-12)]
        put_back = [widths + np.eye(len(widths), dtype=int)[place] * step for _, _, place, step in near]
        assert any(count(w) > Fraction(str(fraction)) * before for w in put_back)


@settings(deadline=None, max_examples=300)
@given(problems(), options, st.sampled_from(["macs", "params", "channels"]), fractions, fractions)
def test_smaller_budgets_are_subsets(problem, options, kind, one, other):
    costs, sizes, scores = problem
    try:
        small, large = (cut(Budget.of(**{kind: f}, **options), costs, sizes, scores) for f in sorted((one, other)))
    except BudgetError:
        return
    for name in scores:
        assert set(small[name]) <= set(large[name])


@settings(deadline=None, max_examples=300)
@given(problems(), options, st.sampled_from(["macs", "params", "channels", "threshold"]), fractions)
def test_widths_and_choice(problem, options, kind, fraction):
    costs, sizes, scores = problem
    budget = Budget.of(**{kind: fraction}, **options)
    try:
        kept = cut(budget, costs, sizes, scores)
    except BudgetError:
        return
    for name, channels in kept.items():
        size, r = sizes[name], options["round_to"]
        assert (np.diff(channels) > 0).all()
        assert len(channels) >= min(size, options["min_channels"])
        if size >= r:
            assert len(channels) % r == 0 or len(channels) == size == narrowest(size, budget)
        gone = np.setdiff1d(np.arange(size), channels)
        assert not len(gone) or scores[name][gone].max() <= scores[name][channels].min()


@given(st.integers(1, 400), st.integers(1, 1000))
def test_channels_keeps_the_exact_ceiling(n, permille):
    scores = {"g0": np.arange(n, dtype=float)}
    kept = cut(Budget.of(channels=permille / 1000), chain([n]), {"g0": n, "out": 3}, scores)
    assert len(kept["g0"]) == -(-n * permille // 1000)


def test_a_tenth_of_thirty_is_three():
    for fraction, n, width in ((0.1, 30, 3), (0.07, 100, 7), (0.29, 100, 29), (1, 7, 7), (0.5, 7, 4)):
        kept = cut(Budget.of(channels=fraction), chain([n]), {"g0": n, "out": 3}, {"g0": np.ones(n)})
        assert len(kept["g0"]) == width


def test_global_compares_after_division_by_the_groups_mean():
    scores = {"g0": np.array([1.0, 2.0, 3.0, 10.0]), "g1": np.array([100.0, 400.0, 400.0, 300.0])}
    sizes = {"g0": 4, "g1": 4, "out": 3}
    widths = [len(c) for c in cut(Budget.of(params=0.85), chain([4, 4]), sizes, scores).values()]
    assert widths == [3, 4]  # 1/4 goes before 100/300
    scaled = {"g0": scores["g0"] * 1e200, "g1": scores["g1"] * 1e-200}
    for fraction in (0.9, 0.7, 0.5, 0.4):
        one, other = (cut(Budget.of(params=fraction), chain([4, 4]), sizes, s) for s in (scores, scaled))
        assert all(one[name].tolist() == other[name].tolist() for name in one)


def test_a_group_of_zeros_goes_first():
    scores = {"g0": np.array([1.0, 2.0, 3.0]), "g1": np.zeros(3)}
    kept = cut(Budget.of(params=0.6), chain([3, 3]), {"g0": 3, "g1": 3, "out": 3}, scores)
    assert len(kept["g0"]) == 3 and len(kept["g1"]) < 3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_scores_cut_all_groups_alike(value):
    sizes = {"g0": 16, "g1": 32, "out": 3}
    scores = {"g0": np.full(16, value), "g1": np.full(32, value * 7)}
    for fraction in (0.7, 0.5, 0.3):
        kept = cut(Budget.of(params=fraction), chain([16, 32]), sizes, scores)
        assert abs(len(kept["g0"]) / 16 - len(kept["g1"]) / 32) <= 1 / 16


def test_uniform_cuts_all_groups_alike():
    sizes = [16, 32, 64]
    named = {**{f"g{i}": n for i, n in enumerate(sizes)}, "out": 3}
    scores = {f"g{i}": np.random.default_rng(i).random(n) * 10 ** i for i, n in enumerate(sizes)}
    kept = cut(Budget.of(macs=0.3, scope="uniform"), chain(sizes), named, scores)
    shares = [len(kept[name]) / named[name] for name in scores]
    assert max(shares) - min(shares) <= 1 / 16


def test_threshold_takes_the_voted_score_as_it_is():
    scores = {"g0": np.array([0.5, 0.1, 0.3, 0.2]), "g1": np.array([0.01, 0.02, 0.02])}
    sizes = {"g0": 4, "g1": 3, "out": 3}
    kept = cut(Budget.of(threshold=0.2), chain([4, 3]), sizes, scores)
    assert kept["g0"].tolist() == [0, 2, 3] and kept["g1"].tolist() == [1]
    kept = cut(Budget.of(threshold=0.2, min_channels=2), chain([4, 3]), sizes, scores)
    assert kept["g1"].tolist() == [1, 2]
    assert [len(c) for c in cut(Budget.of(threshold=0), chain([4, 3]), sizes, scores).values()] == [4, 3]
    assert len(cut(Budget.of(threshold=0.2, round_to=2), chain([4, 3]), sizes, scores)["g0"]) == 4


def test_groups_below_the_multiple_are_the_last_resort():
    sizes, scores = {"g0": 32, "g1": 6, "out": 3}, {"g0": np.arange(32.0), "g1": np.zeros(6)}
    gentle = cut(Budget.of(params=0.5, round_to=8), chain([32, 6]), sizes, scores)
    assert len(gentle["g0"]) % 8 == 0 and len(gentle["g1"]) == 6
    harsh = cut(Budget.of(params=0.15, round_to=8), chain([32, 6]), sizes, scores)
    assert len(harsh["g0"]) == 8 and len(harsh["g1"]) < 6


def test_odd_widths_come_down_to_a_multiple():
    kept = cut(Budget.of(params=1.0, round_to=8), chain([20]), {"g0": 20, "out": 3}, {"g0": np.arange(20.0)})
    assert kept["g0"].tolist() == list(range(4, 20))


@pytest.mark.parametrize("options", [{}, {"min_channels": 3}, {"round_to": 4}, {"scope": "uniform"}])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_the_smallest_reachable_value_is_named_and_reachable(kind, options):
    problem = chain([16, 8]), {"g0": 16, "g1": 8, "out": 3}, {"g0": np.arange(16.0), "g1": np.arange(8.0)}
    with pytest.raises(BudgetError, match=rf"{kind}=0.001 cannot be reached: the smallest reachable value is") as error:
        cut(Budget.of(**{kind: 0.001}, **options), *problem)
    value = float(str(error.value).split(f"value is {kind}=")[1].split(" ")[0])
    kept = cut(Budget.of(**{kind: value}, **options), *problem)
    assert all(len(c) == narrowest(problem[1][name], Budget.of(macs=1, **options)) for name, c in kept.items())


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, r"exactly one of macs=.*got none; write macs=0\.5"),
    ({"macs": 0.5, "params": 0.5}, r"exactly one of .* got macs=0\.5 and params=0\.5"),
    ({"macs": 0}, r"macs must be the fraction kept, in \(0, 1\], got 0; write macs=0\.5"),
    ({"params": 50}, r"got 50; write params=0\.5"),
    ({"channels": -0.1}, r"channels must be the fraction kept, in \(0, 1\], got -0\.1"),
    ({"macs": float("nan")}, "got nan"),
    ({"macs": float("inf")}, "got inf"),
    ({"macs": "0.5"}, "got '0.5'"),
    ({"macs": True}, "got True"),
    ({"threshold": -1}, "threshold must be a finite number >= 0, got -1"),
    ({"threshold": float("inf")}, "threshold must be a finite number >= 0, got inf"),
    ({"macs": 0.5, "scope": "locally"}, "unknown scope 'locally'"),
    ({"macs": 0.5, "round_to": 0}, r"round_to must be an integer >= 1, got 0"),
    ({"macs": 0.5, "min_channels": 1.5}, r"min_channels must be an integer >= 1, got 1\.5"),
])
def test_malformed_budgets_say_what_to_write(arguments, message):
    with pytest.raises(BudgetError, match=message):
        Budget.of(**arguments)


def test_numbers_of_other_kinds():
    assert Budget.of(macs=np.float32(0.1)).value == Fraction(1, 10)
    assert Budget.of(macs=Fraction(1, 3)).value == Fraction(1, 3)
    assert Budget.of(macs=1).value == 1


def test_a_hundred_thousand_channels_cost_few_evaluations(monkeypatch):
    sizes = [2000] * 50
    costs = chain(sizes)
    scores = {f"g{i}": np.random.default_rng(i).random(n) for i, n in enumerate(sizes)}
    calls, original = [], Count.__call__
    monkeypatch.setattr(Count, "__call__", lambda self, widths: calls.append(1) or original(self, widths))
    start = time.perf_counter()
    cut(Budget.of(macs=0.37), costs, {**{n: 2000 for n in scores}, "out": 3}, scores)
    assert len(calls) <= 40 and time.perf_counter() - start < 2
