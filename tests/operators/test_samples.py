"""Every sample is pruned at random unequal fractions and verified node by node."""

import numpy as np
import pytest
import torch
from samples import SAMPLES

import fxprune


class Unequal:
    """Keeps another share of each group: scores that make equal cuts impossible to hide behind."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, group, tensors):
        return np.random.default_rng([self.seed, *group.name.encode()]).random(group.size) + 0.01


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_pruned_and_verified(sample):
    torch.manual_seed(0)
    model = sample.build()
    coupling = fxprune.analyze(model, sample.inputs)
    if not coupling.prunable:
        assert not sample.prunable
        return
    rng = np.random.default_rng(0)
    widths = {name: int(rng.integers(1, group.size + 1)) for name, group in coupling.prunable.items()}
    plan = fxprune.Plan.from_widths(coupling, model, widths, criterion=Unequal(0))
    small = fxprune.apply(model, plan, verify=False)
    assert fxprune.verify(model, small, plan).ok
