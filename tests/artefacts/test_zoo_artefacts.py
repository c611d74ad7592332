"""The zoo's graph-mode models, saved and loaded in every way. Hours; run with ``-m zoo``."""

from tempfile import TemporaryDirectory

import pytest
import torch
from torch.utils._pytree import tree_leaves

import fxprune
from fxprune.artefacts.exported import close, example_of
from fxprune.artefacts.outputs import plain
from fxprune.artefacts.source import identical, run
from tests.zoo.suites import SUITES

pytestmark = pytest.mark.zoo
# Whose Python makes a batch of one a fact.
STATIC = {"raft_small", "raft_large"}
MODELS = [(suite, name) for suite in SUITES for name in SUITES[suite][0]()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("suite", "name"), MODELS, ids=[f"{suite}-{name}" for suite, name in MODELS])
def test_round_trip(suite, name):
    torch.manual_seed(0)
    model, inputs = SUITES[suite][1](name)
    small = fxprune.compress(model, inputs, channels=0.5, verify=False)
    done = fxprune.record(small)
    if done.mode != "graph":
        pytest.skip("module mode")
    # Not tmp_path, which would keep them all.
    with TemporaryDirectory() as place:
        # Which holds the source, bit for bit, and the program against the model before it writes them.
        artefact = fxprune.save(small, f"{place}/artefact")
        assert not artefact.missing
        program, again = fxprune.load(artefact.folder, trust=True), fxprune.load(artefact.folder, model=model)
        report = (artefact.folder / "report.md").read_text()
    assert ("any batch size" in report) == (name not in STATIC)
    example = example_of(small, done.inputs)
    expected = run(small.eval(), example)
    assert not isinstance(expected, str) and identical(run(again.eval(), example), expected)
    outputs = run(program, example)
    assert all(map(close, tree_leaves(plain(expected)), tree_leaves(plain(outputs))))
