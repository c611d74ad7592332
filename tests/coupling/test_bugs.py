"""A rule that fails: an error where bugs are raised, as in these tests; a freeze that is called a bug where they are
not."""

import json
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

import fxprune
from fxprune import RuleError
from fxprune.rules.bugs import raise_bugs
from fxprune.rules.registry import RULES, rule_for

EXAMPLE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        y = self.b(torch.tanh(self.a(x)))
        return self.c(y.reshape(2, 6, 16).mean(2))


def broken(*args, **kwargs):
    raise KeyError("out of sight")


@pytest.fixture
def users():
    """As it is for users: bugs are not raised."""
    before = raise_bugs(False)
    yield
    raise_bugs(before)


def break_part(monkeypatch, op, **parts):
    monkeypatch.setitem(RULES, op, replace(rule_for(op), **parts))


def test_a_rule_that_raises_is_an_error_here(monkeypatch):
    break_part(monkeypatch, "aten::tanh", couple=broken)
    with pytest.raises(RuleError, match=r"a bug: the rule of aten::tanh raised KeyError: 'out of sight' \(at .*test"
                                        r"_bugs.py:\d+.*\); please report it to fxprune") as caught:
        fxprune.analyze(Net(), EXAMPLE)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(("couple", "what"), [
    (broken, "raised KeyError: 'out of sight'"),
    (lambda op, x: x.vectors[:2], r"gave shapes [(2, 8)] where the operator gave [(2, 8, 4, 4)]"),
])
def test_elsewhere_it_freezes_what_reaches_it_and_is_called_a_bug(monkeypatch, couple, what):
    break_part(monkeypatch, "aten::tanh", couple=couple)
    torch.manual_seed(0)
    coupling = fxprune.analyze(Net(), EXAMPLE)
    (bug,) = coupling.bugs
    assert bug.startswith(f"a bug: the rule of aten::tanh {what} (at ") and "please report" in bug
    assert coupling.groups["a"].frozen.why == bug and list(coupling.prunable) == ["b"]
    assert bug in coupling.report("md") and json.loads(coupling.report("json"))["bugs"] == [bug]
    assert pickle.loads(pickle.dumps(coupling)).bugs == coupling.bugs
    assert fxprune.record(fxprune.compress(Net(), EXAMPLE, channels=0.5)).verification.ok


def test_literals_that_raise_are_an_error_here(monkeypatch):
    break_part(monkeypatch, "aten::reshape", literals=broken)
    with pytest.raises(RuleError, match="a bug: the literals of aten::reshape raised KeyError"):
        fxprune.analyze(Net(), EXAMPLE)


@pytest.mark.usefixtures("users")
def test_elsewhere_they_freeze_as_well(monkeypatch, tmp_path):
    break_part(monkeypatch, "aten::reshape", literals=broken)
    coupling = fxprune.analyze(Net(), EXAMPLE)
    (bug,) = coupling.bugs
    assert bug.startswith("a bug: the literals of aten::reshape raised KeyError: 'out of sight' (at ")
    assert coupling.groups["b"].frozen.why == bug and list(coupling.prunable) == ["a"]
    coupling.to_html(tmp_path / "page.html")
    assert "a bug: the literals of aten::reshape" in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("users")
def test_what_verification_cannot_shrink_is_called_a_bug(monkeypatch):
    class Normed(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2))

    break_part(monkeypatch, "aten::layer_norm", shrink=broken)
    with pytest.raises(fxprune.VerificationError, match="a bug: the shrink of aten::layer_norm raised KeyError"):
        fxprune.compress(Normed(), torch.randn(4, 3), channels=0.5)


def test_where_nothing_fails_there_are_no_bugs():
    coupling = fxprune.analyze(Net(), EXAMPLE)
    assert coupling.bugs == () and "a bug" not in coupling.report("md")
