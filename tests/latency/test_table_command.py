"""``fxprune table`` and ``fxprune compress --latency``, as a user types them."""

import json

import pytest

import fxprune
from fxprune.cli.main import main

SMALL = ("--input", "1,3,16,16", "--threads", "1", "--backend", "fake")


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text('''
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
''')
    return f"{tmp_path / 'net.py'}:make"


def test_a_table_and_a_budget_by_it(net, fake, tmp_path, capsys):
    path = tmp_path / "table.json"
    assert main(["table", net, *SMALL, "--out", str(path), "--minutes", "0.5"]) == 0
    text = capsys.readouterr().out
    table = fxprune.LatencyTable.load(path)
    assert f"{len(table.entries)} entries" in text and "what no width changes" in text and f"written: {path}" in text
    assert table.target == fxprune.Target(threads=1, backend="fake", batch=1)
    fake.prepared.clear()
    assert main(["compress", net, *SMALL, "--latency", "0.6", "--round-to", "1", "--table", str(path),
                 "--out", str(tmp_path / "out")]) == 0
    assert " measured, " in capsys.readouterr().out
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["options"]["budget"] == {"latency": 0.6} and plan["options"]["latency"]["table"] == table.digest


def test_a_budget_without_a_table_measures_one(net, fake, capsys):
    assert main(["compress", net, *SMALL, "--latency", "0.6", "--params", "0.9", "--round-to", "1"]) == 0
    assert "time: " in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "message"), [
    (["--table", "table.json"], "--table is what a time is kept by, and no time is asked; write --latency 0.5"),
    (["--latency", "2"], "latency must be the fraction kept, in (0, 1], got 2"),
    (["--latency", "0.5", "--channels", "0.5"],
     "latency= may have macs=, params= and channels= by pattern beside it, got channels="),
    (["--latency", "0.5", "--runner", "./bench"], "runner must say where the model's file goes, got './bench'"),
])
def test_refusals(net, fake, typed, message, capsys):
    assert main(["compress", net, *SMALL, *typed]) == 2
    assert message in capsys.readouterr().err
