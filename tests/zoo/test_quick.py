"""A quick cut of the zoo: one small model a family, compressed and verified, plus all of ``beyond`` under a marker."""

import pytest
import torch

from tests.zoo.beyond import CASES
from tests.zoo.measure import measure

# Torchvision's and timm's families at widths, depths and picture sizes that take about a second each.
SMALL = {
    "shufflenet": ("torchvision", "shufflenet_v2_x0_5", {"num_classes": 8}, 32),
    "mobilenet": ("torchvision", "mobilenet_v3_small", {"num_classes": 8}, 32),
    "resnet": ("torchvision", "resnet18", {"num_classes": 8}, 32),
    "squeezenet": ("torchvision", "squeezenet1_1", {"num_classes": 8}, 32),
    "convnext": ("timm", "test_convnext", {}, 64),
    "efficientnet": ("timm", "test_efficientnet", {}, 64),
    "nfnet": ("timm", "test_nfnet", {}, 64),
    "byobnet": ("timm", "test_byobnet", {}, 64),
    "vit": ("timm", "test_vit", {"img_size": 64}, 64),
    "vit_relpos": ("timm", "test_vit_relpos", {"img_size": 64}, 64),
    "mambaout": ("timm", "test_mambaout", {}, 64),
    "mlp_mixer": ("timm", "mixer_s32_224", {"img_size": 64, "num_classes": 8}, 64),
    "swin": ("timm", "swin_tiny_patch4_window7_224",
             {"img_size": 56, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 16, "num_classes": 8}, 56),
    "maxvit": ("timm", "test_maxxvit", {}, 64),
}
QUICK = ("unet_2d", "fpn", "yolo_c2f", "dcgan_generator", "esrgan_generator", "lstm", "gru_bidirectional", "tcn",
         "llama_block", "nn_transformer_encoder", "hf_bert", "hf_swin", "hf_bert_with_mask", "hf_llama_with_cache",
         "hf_sam_vision", "hf_dpt")


def build(library, name, options, size):
    pytest.importorskip(library)
    if library == "timm":
        import timm

        if not timm.is_model(name):
            pytest.skip(f"this timm has no {name}")
        return timm.create_model(name, **options), (torch.rand(1, 3, size, size),)
    from torchvision.models import get_model

    return get_model(name, weights=None, **options), (torch.rand(1, 3, size, size),)


def check(model, inputs):
    row = measure(model, inputs, verify=True)
    assert row["mode"] == "graph", row["why"]
    assert row["params"][1] < 0.8 * row["params"][0]
    assert row["nodes"]


@pytest.mark.parametrize("family", SMALL)
def test_family(family):
    torch.manual_seed(0)
    check(*build(*SMALL[family]))


@pytest.mark.parametrize("name", [name for name in QUICK if name in CASES])
def test_beyond(name):
    torch.manual_seed(0)
    check(*CASES[name]())


@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_all_beyond(name):
    torch.manual_seed(0)
    check(*CASES[name]())
