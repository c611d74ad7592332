"""`compress` takes what `plan` takes: the same names, types and defaults."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import BudgetError
from fxprune.planning.cut_options import CutOptions, with_cut_options


def keywords(function):
    return {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def test_the_options_are_plans_keyword_arguments():
    assert CutOptions.__annotations__ == {name: p.annotation for name, p in keywords(fxprune.plan).items()}


def test_compress_shows_them_with_plans_defaults():
    shown = keywords(fxprune.compress)
    assert {name: shown[name] for name in CutOptions.__annotations__} == keywords(fxprune.plan)


def test_other_arguments_are_refused_before_anything_runs():
    ran = []

    @with_cut_options
    def function(model, **cut):
        ran.append(cut)

    function(None, macs=0.3)
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'mac'"):
        function(None, mac=0.3)
    assert ran == [{"macs": 0.3}]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))


@pytest.mark.parametrize("cut", [{"threshold": 0.55}, {"widths": {"0": 3}}, {"params": 0.6, "scope": "uniform"},
                                 {"channels": 0.5, "ignore": "0", "round_to": 2}])
def test_compress_draws_the_plan_that_plan_draws(cut):
    model, x = net(), torch.randn(2, 3, 8, 8)
    drawn = fxprune.plan(fxprune.analyze(model, x), model, **cut)
    assert fxprune.record(fxprune.compress(model, x, **cut)).plan == drawn
    assert any(group.width < group.size for group in drawn.groups.values())


def test_what_plan_refuses_compress_refuses():
    with pytest.raises(BudgetError, match=r"widths= takes the place of a budget, got macs=0.5 as well"):
        fxprune.compress(net(), torch.randn(2, 3, 8, 8), widths={"0": 3}, macs=0.5)
    with pytest.raises(BudgetError, match="threshold must be a finite number >= 0"):
        fxprune.compress(net(), torch.randn(2, 3, 8, 8), threshold=np.nan)
