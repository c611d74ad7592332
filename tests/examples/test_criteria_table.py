"""The table of criteria: its page says what its rows say, none is missing, and a run that was broken off goes on.
(The networks' modules lie among the examples.)"""

import itertools
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
from benchmarks import criteria
from benchmarks.criteria_nets import NETS
from benchmarks.row_log import read
from fxprune.planning.criteria import CRITERIA

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "criteria.md"
ROWS = read(PAGE.with_suffix(".jsonl"))
MACS = (0.8, 0.7, 0.5)


def test_the_page_is_made_of_the_rows():
    assert criteria.report(ROWS) == PAGE.read_text()


@pytest.mark.parametrize("name", NETS)
def test_every_criterion_has_its_draws_under_every_budget_and_recovery(name):
    draws = Counter((row["criterion"], row["recover"], row["macs"]) for row in ROWS if row["net"] == name)
    for criterion, recover, macs in itertools.product([*criteria.PRICED, *CRITERIA], criteria.RECOVERIES, MACS):
        once = recover == "none" and not criteria.reads(criterion)
        assert draws[criterion, recover, macs] == (1 if once else 3)
    peers = {criterion for criterion, _, _ in draws if criterion.startswith(criteria.PEER)}
    assert len(peers) == 7
    assert all(draws[peer, "statistics", macs] == 3 for peer in peers for macs in MACS)
    assert all(row["kept"] <= row["macs"] for row in ROWS)


def test_what_is_known_is_not_computed_again():
    known = {tuple(row[key] for key in criteria.KEYS) for row in ROWS if row["net"] == "digits"}
    args = Namespace(data="", samples=1024, test=10_000, criteria=["l2", "lamp"], recover=["none", "statistics"],
                     macs=[0.7, 0.5])
    assert list(criteria.rows_of("digits", 0, known, args)) == []
    missing = ("digits", "lamp", "statistics", 0.5, 0, 400)
    (row,) = criteria.rows_of("digits", 0, known - {missing}, args)
    stored = next(row for row in ROWS if tuple(row[key] for key in criteria.KEYS) == missing)
    assert row["kept"] == stored["kept"] and abs(row["accuracy"] - stored["accuracy"]) < 2
