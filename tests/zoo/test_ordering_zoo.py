"""Ordering computes the same function on the architectures of the zoo: ``pytest -m zoo tests/test_order_zoo.py``."""

import pytest
import torch

import fxprune
from tests.zoo.suites import SUITES

CASES = [(suite, name) for suite in SUITES for name in SUITES[suite][0]()]


@pytest.mark.zoo
@pytest.mark.parametrize(("suite", "name"), CASES)
def test_the_copy_computes_the_same(suite, name):
    torch.manual_seed(0)
    model, inputs = SUITES[suite][1](name)
    coupling = fxprune.analyze(model, inputs)
    if coupling.mode == "module" or not coupling.prunable:
        pytest.skip("detectors' post-processing depends on the data" if coupling.prunable else "nothing to prune")
    # `order` compares both on random inputs itself, and raises where they differ.
    _, permutation = fxprune.order(model, coupling)
    assert permutation.groups, permutation.report()
