"""What is replaced in PyTorch is replaced for one thread, and put back whatever is raised."""

import builtins
import inspect
import math
import threading

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.patches import ATTENTION, COMPILING, MODULE_CALL, PATCHES, instead, replaced
from fxprune.capture.stepwise import Stepwise


def raw():
    """The attributes as their owners hold them."""
    return [inspect.getattr_static(patch.owner, patch.name, None) for patch in PATCHES]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: f"{patch.owner.__name__}.{patch.name}")
def test_each_exists_in_this_release_of_torch(patch):
    assert callable(patch.original), f"{patch.owner.__name__}.{patch.name} is gone: {patch.why}"


def test_other_threads_get_the_original():
    before, seen = raw(), []
    with replaced({COMPILING: instead(lambda: True)}):
        assert torch.compiler.is_compiling() and raw() != before
        other = threading.Thread(target=lambda: seen.append(torch.compiler.is_compiling()))
        other.start(), other.join()
    assert seen == [False] and raw() == before


def test_a_run_in_a_thread_of_its_own_sees_what_its_owner_replaced():
    def asked():
        run = Stepwise(lambda run: run.wait(torch.compiler.is_compiling()))
        seen = run.advance()
        run.close()
        return seen

    with replaced({COMPILING: instead(lambda: True)}):
        assert asked() is True
    assert asked() is False


def test_the_last_to_leave_puts_the_originals_back():
    before, entered, leave = raw(), threading.Event(), threading.Event()

    def work():
        with replaced({COMPILING: instead(lambda: True)}):
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=work)
    other.start(), entered.wait(10)
    with replaced({COMPILING: instead(lambda: True)}):
        pass
    assert raw() != before and not torch.compiler.is_compiling()
    leave.set(), other.join()
    assert raw() == before


def test_inner_replacements_end_before_outer_ones_and_get_the_true_original():
    with replaced({COMPILING: instead(lambda: "outer")}):
        with replaced({COMPILING: lambda original: ("inner", original())}):
            assert torch.compiler.is_compiling() == ("inner", False)
        assert torch.compiler.is_compiling() == "outer"
    assert torch.compiler.is_compiling() is False


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_is_raised_in_a_forward_everything_is_put_back(error):
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 8)

        def forward(self, x):
            self.a(x)
            raise error

    before, modes = raw(), (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    with pytest.raises((error, fxprune.FxpruneError)):
        fxprune.analyze(Raises(), torch.randn(2, 4))
    assert raw() == before and (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == modes


def test_while_a_model_runs_other_threads_see_no_trace_of_it():
    """The forward that is captured asks another thread what that sees."""
    asked = []

    def look():
        asked.append((builtins.len, builtins.range, math.sqrt, type(nn.Linear(2, 2)(torch.ones(1, 2))).__name__,
                      torch.backends.mha.get_fastpath_enabled(), torch.is_inference_mode_enabled()))

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            asked.append((builtins.len, builtins.range, math.sqrt))
            other = threading.Thread(target=look)
            other.start(), other.join()
            return self.b(self.a(x))

    plain = (len, range, math.sqrt)
    small = fxprune.compress(Asks(), torch.randn(2, 4), channels=0.5)
    assert small(torch.randn(3, 4)).shape == (3, 2)
    assert {entry[:3] for entry in asked} == {plain}
    assert {entry[3:] for entry in asked if len(entry) > 3} == {("Tensor", True, False)}


def test_threads_compress_at_once():
    before, results, errors = raw(), [], []

    def work(seed):
        try:
            net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(2), nn.TransformerEncoderLayer(36, 2, 8, 0.0))
            small = fxprune.compress(net, torch.randn(2, 3, 8, 8), channels=0.5)
            results.append(small(torch.randn(3, 3, 8, 8)).shape)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(results) == 4 and raw() == before


def test_a_dispatcher_that_somebody_has_wrapped_stays_and_hands_on(monkeypatch):
    calls = []
    with replaced({ATTENTION: instead(lambda *args: "replaced")}):
        inner = nn.MultiheadAttention.forward
        monkeypatch.setattr(nn.MultiheadAttention, "forward",
                            lambda self, *args: (calls.append(1), inner(self, *args))[1])
        assert nn.MultiheadAttention.forward(None) == "replaced"
    attention, x = nn.MultiheadAttention(4, 2), torch.randn(3, 4)
    assert attention(x, x, x)[0].shape == (3, 4) and len(calls) == 2
    assert inspect.getattr_static(MODULE_CALL.owner, "__call__") is MODULE_CALL.original
