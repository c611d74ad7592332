"""The latency table's script on a small net: every variant is there, and an interrupted run goes on."""

import importlib.util
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def latency():
    path = Path(__file__).parents[2] / "benchmarks" / "latency.py"
    spec = importlib.util.spec_from_file_location("latency_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_rows(latency, tmp_path, capsys):
    options = ["--models", "squeezenet1_1", "--batches", "1", "2", "--keep", "0.5", "--round-to", "1", "8", "--ways",
               "plain", "channels_last", "--repeats", "2", "--warmup", "0", "--size", "64", "--out", str(tmp_path)]
    rows = latency.main(options)
    assert [(r.batch, r.way, r.round_to) for r in rows] == [
        (batch, way, step) for batch in (1, 2) for way in ("plain", "channels_last") for step in (1, 8)]
    assert all(r.macs_ratio >= 2 and 0 < r.low <= r.measured_ratio <= r.high for r in rows)
    capsys.readouterr()
    assert latency.main(["--compact", str(tmp_path / "rows.jsonl")]) == rows
    assert "channels last, 8" in capsys.readouterr().out
    assert "MACs ratio" in (tmp_path / "table.md").read_text()

    log = tmp_path / "rows.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(line for line in lines if json.loads(line)["batch"] == 1) + "\n")
    again = latency.main(options)
    assert [r for r in again if r.batch == 1] == rows[:4] and len(again) == 8
