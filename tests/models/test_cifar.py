"""The CIFAR ResNets: sizes against the paper's and the usual counts, shapes, messages."""

import pytest
import torch
from torch import fx, nn

from fxprune.models import cifar_resnet, resnet20, resnet32, resnet56, resnet110


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "millions"), [(resnet20, 0.27), (resnet32, 0.46), (resnet56, 0.85), (resnet110, 1.7)]
)
def test_parameters_are_those_of_table_6_of_the_paper(build, millions):
    assert parameters(build(shortcut="A")) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 110])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_depth_counts_convolutions_and_the_linear_layer(depth, shortcut):
    model = cifar_resnet(depth, shortcut=shortcut)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == depth + (2 if shortcut == "B" else 0)


def test_the_deepest_of_the_paper_can_be_built():
    assert parameters(cifar_resnet(1202, shortcut="A")) / 1e6 == pytest.approx(19.4, rel=0.01)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_logits_traced_and_eager(shortcut):
    model = resnet20(num_classes=7, shortcut=shortcut).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 7)
        assert torch.equal(fx.symbolic_trace(model)(x), logits)
        assert model(torch.randn(1, 3, 40, 24)).shape == (1, 7)


def test_option_a_subsamples_and_appends_zeros():
    shortcut = resnet20(shortcut="A").layer2[0].shortcut
    x = torch.randn(2, 16, 8, 8)
    y = shortcut(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()


def test_shortcuts_are_identities_within_a_stage():
    model = resnet20()
    kinds = [type(block.shortcut) for stage in (model.layer1, model.layer2, model.layer3) for block in stage]
    identity, projection = nn.Identity, nn.Sequential
    assert kinds == [identity] * 3 + [projection, identity, identity] * 2


def test_initial_weights_follow_the_seed_and_keep_the_scale():
    torch.manual_seed(0)
    first = resnet20()
    torch.manual_seed(0)
    same = resnet20()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    weight = first.layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("depth", "nearest"), [(0, 8), (2, 8), (18, 20), (57, 56)])
def test_wrong_depths_name_the_nearest(depth, nearest):
    with pytest.raises(ValueError, match=rf"depth must be 6n \+ 2 .* got {depth}; the nearest is {nearest}"):
        cifar_resnet(depth)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r'shortcut must be "A" .* or "B" .* got \'C\''):
        resnet20(shortcut="C")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        resnet20(num_classes=0)
