"""Which operators mix channels that go with channels that stay."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.coupling.mixing import mixes_removed
from fxprune.passes import analysis_of


@pytest.mark.parametrize(("layer", "mixing"), [
    (nn.ReLU(), set()), (nn.BatchNorm1d(8), set()), (nn.Softmax(0), set()),
    (nn.LayerNorm(8), {"aten::layer_norm"}), (nn.RMSNorm(8), {"aten::rms_norm"}),
])
def test_operators_that_mix_a_dimension_that_shrinks(layer, mixing):
    model, x = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 4)).eval(), torch.randn(3, 5)
    analysis = analysis_of(model, x)
    plan = fxprune.plan(analysis.coupling, model, channels=0.5)
    view = analysis.views(plan.channels)[0]
    assert {call.op for call in view.tape.ran or view.tape.calls if mixes_removed(view, call)} == mixing
    whole = analysis.views({})[0]
    assert not any(mixes_removed(whole, call) for call in whole.tape.ran or whole.tape.calls)
