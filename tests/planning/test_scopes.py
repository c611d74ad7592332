"""How scores of different groups are compared."""

import numpy as np
import pytest

from fxprune.errors import BudgetError
from fxprune.ir.costs import Costs, Count
from fxprune.planning.budget import Budget, cut
from fxprune.planning.scopes import saved_by_one


def costs(each: dict[str, int]) -> Costs:
    """Every channel of a group costs so many parameters, and MACs."""
    names = tuple(each)
    count = Count(np.array(list(each.values())), np.arange(1, len(each) + 1)[:, None], np.array([1] + [0] * len(each)),
                  np.arange(1, len(each) + 1), np.arange(len(each)), np.ones(len(each), np.int64))
    return Costs(names, count, count)


SCORES = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([10.0, 20.0, 30.0, 40.0])}
SIZES = {"a": 4, "b": 4}


def kept(scores=SCORES, each=None, shapes=None, **options) -> dict[str, int]:
    budget = Budget.of(**{"macs": 0.5, **options})
    return {name: len(k) for name, k in cut(budget, costs(each or {"a": 1, "b": 1}), SIZES, scores, shapes).items()}


def test_scopes():
    assert kept(scope="global") == {"a": 2, "b": 2}
    assert kept(scope="absolute") == {"a": 1, "b": 3}
    assert kept(scope="uniform") == {"a": 2, "b": 2}


def test_isomorphic_ranks_groups_of_like_shape_together():
    alike, unlike = {"a": "x", "b": "x"}, {"a": "x", "b": "y"}
    assert kept(scope="isomorphic", shapes=alike) == {"a": 1, "b": 3}
    assert kept(scope="isomorphic", shapes=unlike) == {"a": 2, "b": 2}


def test_prices():
    # 10 of "b" for 100 is less than 1 of "a" for 1.
    each = {"a": 1, "b": 100}
    assert kept(each=each, scope="absolute", per="macs", macs=0.75) == {"a": 4, "b": 2}
    assert kept(each=each, scope="absolute", macs=0.75)["a"] == 1
    assert saved_by_one(costs(each), "params", np.array([4, 4])) == pytest.approx({"a": 1 / 404, "b": 100 / 404})


@pytest.mark.parametrize(("options", "text"), [
    ({"per": "seconds"}, "price"), ({"per": "macs", "scope": "uniform"}, "compares none"),
    ({"per": "macs", "macs": None, "channels": 0.5}, "channels= compares none"), ({"scope": "local"}, "scope"),
])
def test_bad_input(options, text):
    with pytest.raises(BudgetError, match=text):
        kept(**options)
