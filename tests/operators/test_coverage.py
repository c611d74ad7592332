"""Every rule has a sample that reaches it, and every sample is as prunable as it says."""

import pytest
from samples import SAMPLES

import fxprune.rules  # noqa: F401  fills the registry
from fxprune.capture.capturing import capture
from fxprune.coupling.grouping import group_channels
from fxprune.coupling.replay import replay
from fxprune.ir.policy import Policy
from fxprune.rules.registry import RULES

# Fused layers of the fast path, which capture switches off; copies between devices; the plain name of what arrives as
# `_conj`; what capture itself consumes; what needs aligned widths or is deprecated.
UNREACHED = """
_native_multi_head_attention _transformer_encoder_layer_fwd _transform_bias_rescale_qkv pin_memory conj lift_fresh
linalg_lu_factor_ex _grouped_mm range
""".split()


def tapes_of(sample):
    return [traced.tape for traced in capture(sample.build().eval(), sample.inputs).traced]


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_a_sample_is_as_prunable_as_it_says(sample):
    outcome = replay(tapes_of(sample), Policy(), {})
    assert not [str(r) for r in outcome.closure.reasons if "no rule" in r.why]
    groups = [g for g in group_channels(outcome).groups
              if any(m.name == "a.weight" and m.role == "producer" for m in g.members)]
    free = [g for g in groups if g.frozen is None and g.size > 1]
    assert bool(free) == sample.prunable, [str(g.frozen) for g in groups]


def test_every_rule_has_a_sample():
    reached = {call.op for sample in SAMPLES for tape in tapes_of(sample) for call in tape.calls}
    names = {op for op, rule in RULES.items() if rule.couple and op.startswith(("aten::", "torchvision::"))}
    names -= {f"{op}_" for op in RULES}
    seen = {op if op in RULES else op.rstrip("_") for op in reached}
    assert sorted(names - seen - {f"aten::{n}" for n in UNREACHED}) == []
