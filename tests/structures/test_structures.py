"""Every structure that real nets are made of: pruned by random unequal fractions, and equal to the masked original."""

import copy
import pickle
import random
from dataclasses import asdict

import attention_cases  # noqa: F401
import cnn_cases  # noqa: F401
import graph_cases  # noqa: F401
import movement_cases  # noqa: F401
import odd_cases  # noqa: F401
import pytest
import python_cases  # noqa: F401
import reference
import sequence_cases  # noqa: F401
from cases import CASES

import fxprune
from fxprune.capture.model_walk import aliases
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import Plan
from fxprune.planning.digest import digest_of
from fxprune.rewrite.folding import Folded


def random_plan(coupling, model, seed):
    """A random set of channels of every group, of random size."""
    draw = random.Random(seed)
    kept = {name: sorted(draw.sample(range(group.size), draw.randint(1, max(group.size - 1, 1))))
            for name, group in coupling.prunable.items()}
    return Plan.build(coupling.groups, kept, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases=aliases(model), policy=asdict(coupling.policy),
                      mode=coupling.mode)


@pytest.mark.parametrize("name", CASES)
def test_structure(name):
    case = CASES[name]
    model = case.build()
    reference.randomise(model, 100)
    example = case.inputs(2)
    before = reference.fingerprint(model)
    analysis = analysis_of(model, example, case.policy)
    coupling = analysis.coupling
    assert coupling.mode == "graph", coupling.why
    frozen = {n: str(g.frozen) for n, g in coupling.groups.items() if g.frozen}
    assert tuple(coupling.prunable) == case.prunable, frozen
    reference.assert_untouched(before, model)
    for seed in range(3):
        before = reference.fingerprint(model)
        plan = random_plan(coupling, model, seed)
        small = carry_out(Folded(model), analysis, plan)
        reference.assert_untouched(before, model)
        reference.assert_sliced(model, small, plan.keep, case.renumbered)
        if seed == 0:
            fxprune.verify(model, small, plan)  # its own verification must agree
            small = copy.deepcopy(small)
        if seed == 1:
            small = pickle.loads(pickle.dumps(small))
        reference.assert_agrees(model, small, plan.keep, case.inputs, seed=seed, patch=case.patch, skip=case.skip,
                                modes=case.modes, batches=case.batches)
