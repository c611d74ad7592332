"""The coupling table in its four formats."""

import csv
import io
import json
from collections import OrderedDict

import pytest
import torch
from report_nets import Branches, branches
from torch import nn

from fxprune import analyze
from fxprune.errors import InputError
from fxprune.report.rows import rows
from fxprune.report.table import coupling_table


@pytest.fixture(scope="module")
def coupling():
    return branches()


def test_rows(coupling):
    found = {row.name: row for row in rows(coupling)}
    assert list(found) == ["conv1", "conv3", "head", "fc"]
    assert found["conv1"].voters == ("conv1", "conv2")
    assert found["conv1"].consumers == ("conv2", "conv3", "head")
    assert set(found["conv1"].coupled_by) == {"add", "cat"}
    assert (found["fc"].prunable, found["fc"].reason) == (False, "model output")
    assert found["head"].prunable


def test_shares_are_what_goes_with_a_group(coupling):
    shares = {row.name: row for row in rows(coupling)}
    parts = {"conv1": 3 * 8 * 9 + 8, "conv2": 8 * 8 * 9 + 8, "norm": 16, "conv3": 8 * 4 + 4, "head": 12 * 6 + 6,
             "fc": 6 * 5 + 5}
    # conv3 goes with its weight and bias, and with 4 of the 12 columns of head.
    assert shares["conv3"].params == pytest.approx((parts["conv3"] + 4 * 6) / sum(parts.values()))
    macs = {"conv1": 64 * 3 * 8 * 9, "conv2": 64 * 8 * 8 * 9, "conv3": 64 * 8 * 4, "head": 64 * 12 * 6, "fc": 6 * 5}
    assert shares["conv3"].macs == pytest.approx((macs["conv3"] + 64 * 4 * 6) / sum(macs.values()))
    assert shares["conv1"].macs == pytest.approx(1 - (64 * 4 * 6 + macs["fc"]) / sum(macs.values()))


def test_text_fits_the_terminal(coupling):
    deep = analyze(nn.Sequential(OrderedDict({"a_block_with_a_rather_long_name_" * 3: nn.Conv2d(3, 8, 3)})),
                   torch.zeros(1, 3, 8, 8))
    for found in (coupling, deep):
        for width in (75, 80, 100, 140):
            lines = coupling_table(found, width=width).splitlines()
            assert max(map(len, lines)) <= width
    assert any(line.startswith("…ng_name_ ") for line in coupling_table(deep, width=75).splitlines())
    wide, narrow = coupling_table(coupling, width=140), coupling_table(coupling, width=75)
    assert "3: conv2, conv3, head" in wide
    assert "3: conv2" not in narrow


def test_the_terminal_decides(coupling, monkeypatch):
    monkeypatch.setenv("COLUMNS", "75")
    assert coupling.report() == coupling_table(coupling, width=75)


def test_what_stands_below(coupling):
    text = coupling_table(coupling, width=120)
    assert "4 coupling groups, 3 prunable" in text
    assert "graph mode; inputs: float32 [1, 3, 8, 8]" in text
    assert "no (1)" in text and "(1) not prunable: model output" in text
    assert "unused in the captured run, left as they are: lost.bias, lost.weight" in text


def test_inferred_inputs_are_named():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    text = coupling_table(analyze(model), width=200)
    assert "inferred: shape (1, 4) from first layer Linear" in text


def test_an_operator_without_a_rule_is_named_with_its_place():
    library = torch.library.Library("fxprune_report_test", "DEF")
    library.define("swap(Tensor x) -> Tensor")
    library.impl("swap", lambda x: x.clone(), "CompositeExplicitAutograd")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.b(torch.ops.fxprune_report_test.swap(self.a(x)))

    coupling = analyze(Net(), torch.zeros(1, 4))
    text = " ".join(coupling_table(coupling, width=200).split())
    assert "operator fxprune_report_test::swap has no rule" in text
    assert "@fxprune.register_rule('fxprune_report_test::swap')" in text
    assert "test_table.py:" in text
    row = {row["name"]: row for row in json.loads(coupling_table(coupling, "json"))["groups"]}["a"]
    assert not row["prunable"] and row["node"] and "test_table.py:" in row["source"]


def test_markdown(coupling):
    lines = coupling_table(coupling, "md").splitlines()
    assert lines[2].startswith("| group ") and lines[3].startswith("|--")
    assert sum(line.startswith("| ") for line in lines) == 5


def test_json(coupling):
    data = json.loads(coupling_table(coupling, "json"))
    assert [group["name"] for group in data["groups"]] == list(coupling.groups)
    assert data["mode"] == "graph" and data["unused"] == ["lost.bias", "lost.weight"]
    assert data["params"] == coupling.costs.params(coupling.widths)


def test_csv(coupling):
    found = list(csv.DictReader(io.StringIO(coupling_table(coupling, "csv"))))
    assert [row["name"] for row in found] == list(coupling.groups)
    assert found[0]["voters"] == "conv1 conv2"
    assert found[-1]["prunable"] == "False"


def test_unknown_format(coupling):
    with pytest.raises(InputError, match="unknown format 'html'.*'csv', 'json', 'md', 'text'"):
        coupling.report("html")


def test_the_model_is_not_touched():
    model = Branches().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    analyze(model, torch.zeros(1, 3, 8, 8)).report()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
