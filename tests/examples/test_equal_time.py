"""What is said of accuracy at equal time. (The networks' modules lie among the examples.)"""

from pathlib import Path

import pytest

pytest.importorskip("sklearn")
from benchmarks import latency_accuracy
from benchmarks.row_log import read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "accuracy_time.md"


def test_the_page_is_made_of_the_rows():
    assert latency_accuracy.report(read(PAGE.with_suffix(".jsonl"))) == PAGE.read_text()


def test_rows_are_counted_and_refusals_stand_below():
    def cell(accuracy):
        return {"time": 0.5, "macs": 0.4, "accuracy": accuracy}

    rows = [{"net": "resnet20", "target": "eager, batch 64", "asked": 0.5, "recover": recover, "by time": cell(mine),
             "by MACs": cell(70.0), "by MACs, steps of 8": cell(60.0)}
            for recover, mine in (("none", 70.0), ("statistics", 65.0), ("least_squares", 80.0))]
    rows.append({"net": "resnet20", "target": "eager, batch 64", "asked": 0.33, "recover": "", "refused": "too little"})
    text = latency_accuracy.report(rows)
    assert "behind *by MACs*: 1, 1, 1 in all; 0, 1, 0 as cut; 0, 0, 1 statistics; 1, 0, 0 least squares." in text
    assert "behind *by MACs, steps of 8*: 3, 0, 0 in all; 1, 0, 0 as cut; 1, 0, 0 statistics; 1, 0, 0 least " in text
    assert "| least squares | 80.00 (0.500, 0.400) |" in text
    assert text.endswith("ResNet-20, eager, batch 64, 0.33: too little\n")
