"""The benchmarks of time budgets: rivals that take as long, what Torch-Pruning keeps, and what is said of the rows."""

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from latency_nets import Residual  # type: ignore[import-not-found]

import fxprune
from benchmarks import latency_budget as budget
from benchmarks.row_log import read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "latency.md"


def test_the_page_is_made_of_the_rows():
    assert budget.report(read(PAGE.with_suffix(".jsonl"), budget.row_of)) == PAGE.read_text()


def test_the_doctests_of_the_benchmark():
    assert doctest.testmod(budget).failed == 0


def test_what_a_budget_does_not_reach_is_no_rival():
    def draw(macs):
        if macs < 0.4:
            raise fxprune.BudgetError("too small")
        return macs, macs, 2 * macs

    rival = budget.as_long(draw, lambda macs: macs, share=0.3)
    assert 0.4 <= rival.time < 0.41 and rival.score == 2 * rival.macs


def test_scores_are_kept_by_channel_and_in_units_of_their_group():
    scores = {"a": np.array([1.0, 3.0]) / 2, "b": np.array([10.0, 10.0, 40.0]) / 20}
    assert budget.kept_score(scores, {}) == 1.0
    assert budget.kept_score(scores, {"a": [1], "b": [2]}) == pytest.approx((1.5 + 2.0) / 5)
    assert budget.kept_score(scores, None) is None


def test_what_torch_pruning_keeps_is_told_by_its_history():
    coupling = fxprune.analyze(Residual().eval(), torch.randn(1, 3, 8, 8))
    name, group = next((name, group) for name, group in coupling.groups.items() if group.frozen is None)
    voter, reader = group.voters[0], group.consumers[0]
    left = budget.kept_by_peer(coupling, [(voter.layer, True, [0, 2]), (reader.layer, False, [3])])
    assert left == {name: [k for k in range(group.size) if k not in (0, 2, 3)]}
    assert budget.kept_by_peer(coupling, [("nowhere", True, [0])]) is None


def test_rows_are_read_as_they_were_written_and_counted():
    rivals = {"by MACs": budget.Rival(0.5, 0.4, 0.41, 0.6), "Torch-Pruning": budget.Rival(refused="RuntimeError: no")}
    rows = [budget.Row("resnet18", "eager", 1, 0.5, 0.5, 0.51, 1.1, 20.0, 4.0, 0.3, 0.8, rivals),
            budget.Row("resnet18", "eager", 1, 0.75, 0.75, 0.70, 1.0, 20.0, 6.0, 0.5, 0.9, {}),
            budget.Row("resnet18", "eager", 8, 0.33, refused="cannot be reached")]
    assert [budget.row_of(json.dumps(row, default=vars)) for row in rows] == rows
    text = budget.report(rows)
    assert "Measured within 3 % of asked: 1 of 2 rows (2 of 3 were not refused)" in text
    assert "off by 5.0% in the median. Search: 5 s in the median, at most 6 s" in text
    assert "by MACs: keeps less of the scores at the same time in 1 of 1 rows" in text
    assert "resnet18, eager, batch 8, 0.33: cannot be reached" in text and "| fails" in text
