"""Architectures from configurations: each can be built, and a few of each package are compressed and verified."""

import pytest
import torch

from fxprune.ir.trees import tensors_in
from tests.zoo.configured import diffusers_models, transformers_models
from tests.zoo.configured.options import INPUTS, OPTIONS
from tests.zoo.measure import measure


@pytest.mark.parametrize("name", ["llama", "t5", "llava", "qwen2_moe"])
def test_transformers(name):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    row = measure(*transformers_models.build(name), verify=True)
    assert (row["mode"], row["untrained"]) == ("graph", "") and "train" in str(row["runs"])
    assert row["params"][1] < 0.6 * row["params"][0]


@pytest.mark.parametrize("name", ["unet_2d", "sd3"])
def test_diffusers(name):
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    row = measure(*diffusers_models.build(name), verify=True)
    assert (row["mode"], row["untrained"]) == ("graph", "") and "train" in str(row["runs"])
    assert row["params"][1] < 0.6 * row["params"][0]


def test_options_belong_to_what_is_listed():
    pytest.importorskip("transformers")
    listed = set(transformers_models.names())
    assert len(listed) + len(diffusers_models.MODELS) >= 120
    assert not (OPTIONS.keys() | INPUTS.keys()) - listed


@pytest.mark.zoo
@pytest.mark.parametrize(("package", "name"), [(package, name) for package in (transformers_models, diffusers_models)
                                               for name in package.names()])
def test_every_one_runs(package, name):
    torch.manual_seed(0)
    model, inputs = package.build(name)
    with torch.no_grad():
        out = model.eval()(**inputs)
    assert any(t.numel() for t in tensors_in(out))
