"""The search's example at tiny size: the command finds a plan for ResNet-20, and the script compares it."""

import numpy as np
import pytest

import fxprune
from fxprune.cli.main import main

optuna = pytest.importorskip("optuna")


def test_the_command_and_the_comparison(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 60)
    np.savez(tmp_path / "tiny.npz", train_x=images, train_y=labels, test_x=images[:20], test_y=labels[:20])
    monkeypatch.setenv("SEARCH_DATA", str(tmp_path / "tiny.npz"))
    import search_resnet20
    search_resnet20.splits.cache_clear()
    file = search_resnet20.__file__
    assert main(["search", "fxprune.models:resnet20", "--weights", str(search_resnet20.WEIGHTS), "--input", "2,3,32,32",
                 "--macs", "0.5", "--recover", "statistics", "--data", f"{file}:batches", "--samples", "32", "--trials",
                 "3", "--evaluate", f"{file}:accuracy", "--search-seed", "0", "--out", str(tmp_path / "found")]) == 0
    assert "start" in capsys.readouterr().out
    values = search_resnet20.main([str(tmp_path / "found")])
    out = capsys.readouterr().out
    assert len(values) == 3 and all(0 <= value <= 100 for value in values)
    assert out.count("% MACs") == 2 and "of 20 test images" in out
    assert fxprune.Plan.load(tmp_path / "found" / "plan.json").options["criterion"] == "l2"
