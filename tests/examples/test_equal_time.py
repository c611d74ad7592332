"""What is said of accuracy at equal time. (The networks' modules lie among the examples.)"""

import pytest

pytest.importorskip("sklearn")
from benchmarks import latency_accuracy


def test_rows_are_counted_and_refusals_stand_below():
    def cell(accuracy):
        return {"time": 0.5, "macs": 0.4, "accuracy": accuracy}

    rows = [{"net": "resnet20", "target": "eager, batch 64", "asked": 0.5, "recover": recover, "by time": cell(mine),
             "by MACs": cell(70.0), "by MACs, steps of 8": cell(60.0)}
            for recover, mine in (("none", 70.0), ("statistics", 65.0), ("least_squares", 80.0))]
    rows.append({"net": "resnet20", "target": "eager, batch 64", "asked": 0.33, "recover": "", "refused": "too little"})
    text = latency_accuracy.report(rows)
    assert "ahead of *by MACs* in 1 of 3 rows, and behind in 1." in text
    assert "ahead of *by MACs, steps of 8* in 3 of 3 rows, and behind in 0." in text
    assert "| least squares | 80.00 (0.500, 0.400) |" in text
    assert text.endswith("ResNet-20, eager, batch 64, 0.33: too little\n")
