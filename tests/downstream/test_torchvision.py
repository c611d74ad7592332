"""Results with torchvision's own helpers."""

import copy

import pytest
import torch
import torchvision
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor

import fxprune

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return fxprune.compress(torchvision.models.resnet18().eval(), X, channels=0.5, form="module")


def test_containers_and_names(resnet):
    assert type(resnet) is torchvision.models.ResNet and len(resnet.layer1) == 2
    assert resnet.layer1[0].conv1.out_channels == 32
    assert torch.equal(resnet.layer1[-1](torch.ones(1, 32, 4, 4)), resnet.layer1[1](torch.ones(1, 32, 4, 4)))


def test_intermediate_layers(resnet):
    out = IntermediateLayerGetter(resnet, {"layer1": "fine", "layer4": "coarse"})(X)
    assert {name: features.shape[1] for name, features in out.items()} == {"fine": 32, "coarse": 256}
    assert torch.equal(resnet.fc(resnet.avgpool(out["coarse"]).flatten(1)), resnet(X))


def test_feature_extractor(resnet):
    out = create_feature_extractor(resnet, ["layer2", "flatten"])(X)
    assert out["layer2"].shape == (2, 64, 8, 8)
    assert torch.equal(resnet.fc(out["flatten"]), resnet(X))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn",
                                  "retinanet_resnet50_fpn"])
def test_a_detector(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=3, min_size=64,
                                                        max_size=96).eval()
    small = fxprune.compress(model, ([torch.rand(3, 64, 64)],), channels=0.5, form="module")
    record = fxprune.record(small)
    assert type(small) is type(model) and record.verification.ok and record.after.params < 0.3 * record.before.params
    images = [torch.rand(3, 80, 90), torch.rand(3, 64, 64)]
    batch, _ = small.transform(images)
    maps = small.backbone(batch.tensors)
    assert {features.shape[1] for features in maps.values()} == {small.backbone.out_channels}
    found = small(images)
    assert len(found) == 2 and all(set(each) == {"boxes", "labels", "scores"} for each in found)
    assert all((each["boxes"] <= 90).all() for each in found)  # in the sizes of the images that were given
    targets = [{"boxes": torch.tensor([[2.0, 2, 30, 30]]), "labels": torch.tensor([1])}] * 2
    losses = copy.deepcopy(small).train()(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.slow
def test_a_segmentation_model():
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None,
                                                                      num_classes=3).eval()
    small = fxprune.compress(model, X, channels=0.5, form="module")
    assert small(X)["out"].shape == (2, 3, 64, 64) and list(small.backbone(X)) == ["low", "high"]
