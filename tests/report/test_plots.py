"""Plots: they are drawn, they show what they should, and bad input is named."""

import json

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import InputError, MissingExtraError
from fxprune.report import plots


@pytest.fixture(scope="module")
def record():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    return fxprune.record(fxprune.compress(net, torch.randn(1, 3, 12, 12), channels=0.5))


@pytest.fixture
def log(tmp_path):
    rows = [{"row": row, "macs": 100 * macs, "accuracy": 90 - macs} for row in ("l2", "dwgl") for macs in (4, 2, 1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"event": "votes"}, {"macs": 5, "accuracy": None}, 3])) + "\n\n")
    return path


def texts(axes):
    return [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.get_xticklabels())]


def test_widths(record, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.widths(record, tmp_path / "widths.png")
    before, after = drawn.axes[0].containers
    assert [bar.get_height() for bar in before] == [32, 16, 4]
    assert [bar.get_height() for bar in after] == [16, 8, 4]
    assert {"0", "2", "4", "output channels"} <= set(texts(drawn.axes[0]))
    assert (tmp_path / "widths.png").stat().st_size > 1000


def test_scores(record, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.scores(record.plan, tmp_path / "scores.svg")
    shown = [axes for axes in drawn.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["0\n16 of 32 kept (50.0 %)", "2\n8 of 16 kept (50.0 %)"]
    heaps = [sum(bar.get_height() for bar in heap) for heap in shown[0].containers]
    assert heaps == [16, 16]
    assert len(plots.scores(record.plan, groups="2").axes) == 1


def test_tradeoff(log, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.tradeoff(log, tmp_path / "curve.pdf", by="row")
    lines = {line.get_label(): list(line.get_xdata()) for line in drawn.axes[0].lines}
    assert lines == {"l2": [100, 200, 400], "dwgl": [100, 200, 400]}
    two = plots.tradeoff({"a": log, "b": [{"macs": 1, "top1": 2}]}, accuracy="top1").axes[0]
    assert [line.get_label() for line in two.lines] == ["b"]


def test_bad_input(record, log, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "broken.jsonl").write_text('{"macs": 1}\n{"macs"')
    for call, message in (
        (lambda: plots.widths(record.plan), "record must be fxprune.record(small), got Plan"),
        (lambda: plots.scores(record), "plan must be a fxprune.Plan, got Record"),
        (lambda: plots.scores(record.plan, groups=["conv9"]), "unknown group 'conv9'"),
        (lambda: plots.scores(record.plan, groups=[]), "plan must hold scores"),
        (lambda: plots.tradeoff(log, accuracy="top5"), "the numbers 'macs' and 'top5', got none"),
        (lambda: plots.tradeoff(tmp_path / "none.jsonl"), "log must be a readable JSON-lines file"),
        (lambda: plots.tradeoff(tmp_path / "broken.jsonl"), "line 2, does not"),
        (lambda: plots.widths(record, tmp_path / "none" / "x.png"), "path must be a file that can be written"),
        (lambda: plots.widths(record, tmp_path / "x.sheet"), "path must be a file that can be written"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert message in str(error.value)


def test_without_matplotlib(record, no_matplotlib):
    with pytest.raises(MissingExtraError, match=r'pip install "fxprune\[plots\]"'):
        plots.widths(record)
