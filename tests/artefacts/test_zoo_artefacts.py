"""Source and exported program of the zoo's graph-mode models. Minutes; run with ``-m zoo``."""

import copy

import pytest
import torch

import fxprune
from fxprune.artefacts.exported import example_of, exported
from fxprune.artefacts.source import check_source, source_of
from tests.zoo.suites import build_torchvision, torchvision_names

pytestmark = pytest.mark.zoo
# Whose Python makes a batch of one a fact.
STATIC = ("raft_small", "raft_large")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", torchvision_names())
def test_torchvision(name):
    torch.manual_seed(0)
    model, inputs = build_torchvision(name)
    small = fxprune.compress(model, inputs, channels=0.5, verify=False)
    done = fxprune.record(small)
    if done.mode != "graph":
        pytest.skip("module mode")
    small = copy.deepcopy(small)
    text = source_of(small, name)
    check_source(text, copy.deepcopy(small), example_of(small, done.inputs))
    _, words = exported(small.eval(), done.inputs)
    assert words == ("a batch of 1 only" if name in STATIC else "any batch size")
