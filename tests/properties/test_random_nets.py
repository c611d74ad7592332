"""Random nets, pruned at random: equal to the masked original or refused by name, never wrong."""

import os
import random
from dataclasses import asdict

import random_nets
import reference
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import fxprune
from fxprune import analyze
from fxprune.capture.model_walk import aliases
from fxprune.coupling.permutable import permutable
from fxprune.errors import FxpruneError
from fxprune.ir.policy import Policy
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import Plan
from fxprune.planning.digest import digest_of
from fxprune.rewrite.folding import Folded

programs = st.lists(st.tuples(st.sampled_from(sorted(random_nets.STEPS)), st.integers(0, 10_000)), min_size=1,
                    max_size=7)


def random_plan(coupling, model, seed):
    draw = random.Random(seed)
    kept = {name: sorted(draw.sample(range(g.size), draw.randint(1, g.size)))
            for name, g in coupling.prunable.items() if draw.random() < 0.8}
    if draw.random() < 0.3:  # in a new order, where the groups allow it
        for name in sorted(permutable(coupling) & set(kept)):
            draw.shuffle(kept[name])
    return _plan(coupling, model, kept)


def _plan(coupling, model, kept):
    return Plan.build(coupling.groups, kept, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases=aliases(model), policy=asdict(coupling.policy),
                      mode=coupling.mode)


def test_copies_of_a_unit_that_a_roll_tears_apart_keep_their_order():
    """Depthwise with a multiplier: the three outputs of a channel look alike, and the roll cuts through one of them."""
    model = random_nets.RandomNet([("activation", 0), ("grouped", 5), ("roll_or_flip", 5893)])
    assert not permutable(analyze(model, torch.randn(2, 3, 4, 4)))


@settings(max_examples=int(os.environ.get("FXPRUNE_EXAMPLES", "150")), deadline=None,
          suppress_health_check=list(HealthCheck))
@given(programs, st.integers(0, 1000), st.sampled_from(["dims", "whole"]), st.sampled_from(["within", "whole"]))
def test_equal_or_refused(program, seed, heads, grouped):
    torch.manual_seed(0)
    model = random_nets.RandomNet(program)
    note(model.log)
    reference.randomise(model, seed)
    analysis = analysis_of(model, torch.randn(2, 3, 4, 4), Policy(heads, grouped))
    coupling = analysis.coupling
    assert coupling.mode == "graph", coupling.why
    plan = random_plan(coupling, model, seed)
    note({name: (g.size, g.kept) for name, g in plan.groups.items()})
    note({name: str(g.frozen) for name, g in coupling.groups.items() if g.frozen})
    try:
        small = carry_out(Folded(model), analysis, plan)
    except FxpruneError as refusal:
        note(refusal)
        return
    reference.assert_sliced(model, small, plan.keep, tuple(n for n, _ in model.named_buffers() if "order" in n))
    if seed % 4 == 0:
        fxprune.verify(model, small, plan)
    modes = (("eval", "train"),) if seed % 2 else (("train", "eval"),)
    reference.assert_agrees(model, small, plan.keep, lambda batch: (torch.randn(batch, 3, 4, 4),), seed=seed,
                            modes=modes[0], batches=(3,))
