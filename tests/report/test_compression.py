"""The before/after table."""

import pytest
import torch
from report_nets import Branches

import fxprune
from fxprune.errors import InputError
from fxprune.report.compression import compression_table


@pytest.fixture(scope="module")
def record():
    torch.manual_seed(0)
    return fxprune.record(fxprune.compress(Branches(), torch.zeros(1, 3, 8, 8), channels=0.5, verify=False))


def test_totals(record):
    lines = compression_table(record).splitlines()
    before = 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 16 + 8 * 4 + 4 + 12 * 6 + 6 + 6 * 5 + 5
    after = 3 * 4 * 9 + 4 + 4 * 4 * 9 + 4 + 8 + 4 * 2 + 2 + 6 * 3 + 3 + 3 * 5 + 5
    assert lines[3].split() == ["parameters", str(before), str(after), f"{100 * after / before:.1f}", "%"]
    assert lines[4].split() == ["channels", "31", "18", "58.1", "%"], "8 + 8 + 4 + 6 + 5 become 4 + 4 + 2 + 3 + 5"
    assert "4 of 5 layers are narrower; graph mode" in lines
    assert "not verified (verify=False)" in lines


def test_layers(record):
    assert "conv2" not in compression_table(record)
    text = compression_table(record, layers=True)
    found = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert found["conv3"] == ["4", "2", "50.0", "%"]
    assert found["fc"] == ["5", "5", "100.0", "%"]


def test_the_table_of_layers_fits_the_terminal():
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    net.add_module("a_block_with_a_rather_long_name_" * 3, torch.nn.Linear(10, 20_000))
    done = fxprune.record(fxprune.compress(torch.nn.Sequential(net, torch.nn.Linear(20_000, 4)), torch.zeros(1, 10),
                                           channels=0.5, verify=False))
    lines = compression_table(done, layers=True, width=60).splitlines()
    assert max(map(len, lines[-4:])) <= 60 and any(line.startswith("…") for line in lines[-4:])
    assert "a_block_with" in compression_table(done, "md", layers=True, width=60)


def test_markdown(record):
    lines = compression_table(record, "md").splitlines()
    assert lines[0].startswith("|") and lines[2].startswith("| MACs")
    assert lines[-3:-1] == ["- 4 of 5 layers are narrower; graph mode", "- not verified (verify=False)"]


def test_unknown_format(record):
    with pytest.raises(InputError, match="unknown format 'csv'.*'md', 'text'"):
        compression_table(record, "csv")


def test_folded_constants_are_told():
    torch.manual_seed(0)
    small = fxprune.compress(Branches(), torch.zeros(1, 3, 8, 8), channels=0.5, fold_constants=True, verify=False)
    text = compression_table(fxprune.record(small))
    assert "constants of removed channels folded into" in text
