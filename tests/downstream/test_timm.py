"""Results with timm's own API."""

import copy

import pytest
import torch

import fxprune

timm = pytest.importorskip("timm")
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MODELS = {
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4, "depths": (1, 1, 1, 1), "embed_dim": 48},
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "efficientnet_b0": {},
}
QUICK = ("vit_tiny_patch16_224", "convnext_atto")


@pytest.fixture(scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
                                        for name in MODELS])
def pair(request):
    torch.manual_seed(0)
    model = timm.create_model(request.param, **MODELS[request.param]).eval()
    return model, fxprune.compress(model, X, channels=0.5, form="module")


def test_features_and_head_are_the_result(pair):
    model, small = pair
    features = small.forward_features(X)
    assert type(small) is type(model) and fxprune.record(small).verification.ok
    assert torch.equal(small.forward_head(features), small(X))
    wide = model.forward_features(X)
    channel = 1 if wide.shape[1] == model.num_features else -1
    assert small.num_features == features.shape[channel] < wide.shape[channel] == model.num_features
    assert small.head_hidden_size == small.forward_head(features, pre_logits=True).shape[1] < model.head_hidden_size


def test_intermediate_features_are_as_wide_as_the_model_says(pair):
    model, small = pair
    final, between = small.forward_intermediates(X)
    assert torch.allclose(final, small.forward_features(X), atol=1e-5)
    assert [f.shape[1] for f in between] == [row["num_chs"] for row in small.feature_info]
    assert [row["num_chs"] for row in model.feature_info] == [f.shape[1] for f in model.forward_intermediates(X)[1]]


def test_a_new_head_fits(pair):
    _, small = pair
    again = copy.deepcopy(small)
    again.reset_classifier(7)
    out = again(X)
    assert out.shape == (2, 7) and torch.equal(again.forward_features(X), small.forward_features(X))
    out.sum().backward()
    again.reset_classifier(0)
    assert again(X).shape == (2, small.head_hidden_size)


def test_the_original_still_tells_its_own_widths(pair):
    model, _ = pair
    assert model.num_features in model.forward_features(X).shape
    model = copy.deepcopy(model)
    model.reset_classifier(5)
    assert model(X).shape == (2, 5)
