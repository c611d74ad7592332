"""A family of plans: each a subset of the one before, and how much of it is a prefix."""

import pytest
import torch
from torch import nn

from fxprune import analyze
from fxprune.errors import BudgetError, FxpruneError, InputError
from fxprune.models import resnet20
from fxprune.planning.family import nested
from fxprune.rewrite.ordering import order
from fxprune.training import DWGL


@pytest.fixture(scope="module")
def trained():
    """ResNet-20, ordered, its last filters shrunk by many proximal steps."""
    torch.manual_seed(0)
    model = resnet20()
    coupling = analyze(model, torch.zeros(1, 3, 32, 32))
    model, _ = order(model, coupling)
    dwgl = DWGL(coupling, 1.0, direction=(0.0, 8.0), power=2.0)
    dwgl.balance_(model)
    for _ in range(10):
        dwgl.proximal_(model, 0.02)
    return model, coupling


def test_plans_nest(trained):
    model, coupling = trained
    family = nested(coupling, model, macs=[0.75, 0.5, 0.25], vote="intersection")
    assert len(family) == 3 and [p.options["budget"]["macs"] for p in family] == [0.75, 0.5, 0.25]
    for wide, narrow in zip(family[:-1], family[1:], strict=True):
        assert all(set(g.kept) <= set(wide.groups[name].kept) for name, g in narrow.groups.items())
        assert sum(narrow.widths.values()) < sum(wide.widths.values())


def test_what_dwgl_keeps_is_nearly_a_prefix(trained):
    model, coupling = trained
    directed = nested(coupling, model, macs=[0.5])
    torch.manual_seed(1)
    stray = nested(coupling, resnet20(), macs=[0.5])
    mean = [sum(f.prefix(0).values()) / len(f.prefix(0)) for f in (directed, stray)]
    assert mean[0] > 0.95 > mean[1] + 0.1
    report = directed.report()
    assert "kept channels in the prefix" in report and "0.5" in report


def test_a_perfect_prefix():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(8, 0, -1).float()[:, None].expand(8, 3))
    family = nested(analyze(model, torch.zeros(1, 3)), model, channels=[0.75, 0.5])
    assert family.prefix(0) == family.prefix(1) == {"0": 1.0}
    assert [p.groups["0"].kept for p in family] == [(0, 1, 2, 3, 4, 5), (0, 1, 2, 3)]


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"macs": [0.5, 0.75]}, BudgetError, r"macs must decrease.*write macs=\[0.75, 0.5\]"),
    ({"macs": [0.5, 0.5]}, BudgetError, "macs must decrease"),
    ({"macs": 0.5}, BudgetError, r"macs must be a list of the fractions to keep, got 0.5"),
    ({"macs": [0.5], "params": [0.5]}, BudgetError, "exactly one of"),
    ({"macs": [0.5], "threshold": 0.1}, InputError, "threshold= is not one"),
    ({"macs": [0.5, 1e-9]}, FxpruneError, "cannot be reached"),
])
def test_bad_input(trained, options, error, words):
    model, coupling = trained
    with pytest.raises(error, match=words):
        nested(coupling, model, **options)
