"""Runs that wait."""

import threading

import pytest
import torch
from torch import nn

from fxprune.capture.stepwise import Stepwise, stepwise, watched


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def test_weights_that_change_at_a_stop_hold_from_there_on():
    model, x = net(), torch.randn(5, 3)
    run = stepwise(model, ((x,), {}), before=[2], behind=[2])
    stop = run.advance()
    assert stop.number == 2 and stop.out is None
    torch.testing.assert_close(stop.args[0], model[0](x).relu())
    with torch.no_grad():
        stop.args[1].fill_(1.0)
    after = run.advance()
    torch.testing.assert_close(after.out, model[0](x).relu().sum(1, keepdim=True).expand(-1, 2) + model[2].bias)
    assert run.advance() is None and run.advance() is None


def test_results_are_held_until_their_last_stop():
    run = stepwise(net(), ((torch.randn(5, 3),), {}), before=[1, 2], hold={0: 2})
    assert run.advance().held.keys() == {0}
    assert run.advance().held.keys() == {0}
    run.close()


def test_errors_come_to_the_owner():
    run = stepwise(net(), ((torch.randn(5, 7),), {}), before=[2])
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run.advance()


def test_closing_ends_the_thread():
    before = threading.active_count()
    runs = [stepwise(net(), ((torch.randn(2, 3),), {}), before=[0]) for _ in range(3)]
    for run in runs:
        run.advance()
    assert threading.active_count() == before + 3
    for run in runs:
        run.close()
    assert threading.active_count() == before


def test_a_run_that_never_began_can_be_closed():
    before = threading.active_count()
    Stepwise(lambda run: run.wait(1)).close()
    assert threading.active_count() == before


def test_watched_sees_results_in_order():
    seen = []
    watched(net(), ((torch.randn(5, 3),), {}), [0, 2], lambda stop: seen.append((stop.number, tuple(stop.out.shape))))
    assert seen == [(0, (5, 4)), (2, (5, 2))]
