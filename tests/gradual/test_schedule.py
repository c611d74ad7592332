"""From 1.0 to a target in steps: the fractions, what they are of, and where they are refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fxprune
from fxprune.cli.finetuning import budgets_of_steps, finetuned, trainer
from fxprune.cli.main import parser
from fxprune.errors import BudgetError, InputError


@given(st.integers(1, 1000).map(lambda n: n / 1000), st.integers(1, 30))
def test_a_schedule_falls_along_a_cosine_to_its_target(target, steps):
    kept = fxprune.schedule(target, steps)
    assert len(kept) == steps and kept[-1] == target
    whole = [1.0, *kept]
    assert all(a >= b for a, b in zip(whole, whole[1:], strict=False))
    # Symmetric about its middle.
    assert all(whole[i] + whole[steps - i] == pytest.approx(1 + target) for i in range(steps + 1))


def test_an_exponential_keeps_the_same_share_of_what_is_left():
    kept = fxprune.schedule(0.125, 3, shape="exponential")
    assert kept == pytest.approx((0.5, 0.25, 0.125)) and kept[-1] == 0.125


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((0.5, 3, "straight"), InputError, "unknown shape of a schedule 'straight'"),
    ((0, 3), BudgetError, "target must be the fraction that is kept in the end"), ((1.5, 3), BudgetError, "got 1.5"),
    (("x", 3), BudgetError, "got 'x'"), ((0.5, 0), InputError, "steps must be an integer >= 1, got 0"),
    ((0.5, 2.0), InputError, "steps must be"), ((0.5, True), InputError, "steps must be"),
])
def test_other_schedules_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        fxprune.schedule(*arguments)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(2, 6)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_every_step_keeps_its_share_of_the_first_original(kind):
    model, x = net()
    small, before = model, None
    for kept in fxprune.schedule(0.3, steps=4):
        small = fxprune.compress(small, x, **{kind: kept}, of="original")
        record = fxprune.record(small)
        before = before or getattr(record.before, kind)
        # The largest channel of what is left costs this much.
        grain = max(80, 40 + 6 + 4)
        assert kept * before - grain < getattr(record.after, kind) <= kept * before
    assert record.overall.steps == 4 and getattr(record.overall.before, kind) == before
    assert fxprune.verify(model, fxprune.apply(model, record.overall.plan, verify=False), record.overall.plan).ok


def test_what_is_no_share_of_the_original_is_refused():
    model, x = net()
    small = fxprune.compress(model, x, macs=0.4)
    with pytest.raises(BudgetError, match=r"macs=0.6 of the first original is more than is left of it: the model has "
                                          r"0\.\d+ of its macs"):
        fxprune.compress(small, x, macs=0.6, of="original")
    with pytest.raises(BudgetError, match='of="original" counts MACs or parameters, and channels= counts neither'):
        fxprune.compress(small, x, channels=0.6, of="original")
    with pytest.raises(InputError, match="unknown base of a budget 'orignal'; did you mean 'original'"):
        fxprune.compress(small, x, macs=0.3, of="orignal")


def test_the_first_original_is_its_own_original_also_where_it_is_trained_in_between():
    model, x = net()
    one = fxprune.compress(model, x, params=0.5, of="original")
    assert fxprune.record(one).plan.keep == fxprune.record(fxprune.compress(model, x, params=0.5)).plan.keep
    two = fxprune.compress(one, x, params=0.4, of="original", train=lambda model, penalty: None)
    assert fxprune.record(two).after.params <= 0.4 * fxprune.record(one).before.params


def options(*words):
    return parser().parse_args(["compress", "resnet18", *words])


def test_the_commands_steps():
    assert budgets_of_steps(options("--macs", "0.5")) == [{}]
    found = budgets_of_steps(options("--params", "0.4", "--steps", "3"))
    assert found == [{"params": kept, "of": "original"} for kept in fxprune.schedule(0.4, 3)]
    assert budgets_of_steps(options("--steps", "1")) == [{"macs": 0.5, "of": "original"}]
    with pytest.raises(InputError, match="--steps goes towards --macs or --params, and --latency-ms is neither"):
        budgets_of_steps(options("--latency-ms", "3", "--steps", "2"))


def test_what_a_trainer_may_return():
    model, x = net()
    small = fxprune.compress(model, x, channels=0.5)
    assert finetuned(small, model, lambda small, original: None, "f") is small
    other = fxprune.compress(model, x, channels=0.5)
    other.meta.pop("fxprune")
    assert fxprune.record(finetuned(small, model, lambda *_: other, "f")) is fxprune.record(small)
    with pytest.raises(InputError, match="must return a module of the same form, but "):
        finetuned(small, model, lambda small, original: original, "f")
    with pytest.raises(InputError, match="and returned a int"):
        finetuned(small, model, lambda *_: 3, "f")
    with pytest.raises(InputError, match="must name a function fit"):
        trainer("math:pi")
    assert trainer(None) is None and trainer("math:hypot")(3, 4) == 5
