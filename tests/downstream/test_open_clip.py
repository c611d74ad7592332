"""Results with open_clip's own API."""

import pytest
import torch

import fxprune

open_clip = pytest.importorskip("open_clip")
TEXT = {"context_length": 16, "vocab_size": 64, "width": 64, "heads": 4, "layers": 2}
TOWERS = {"ViT": {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32},
          "ResNet": {"layers": (1, 1, 1, 1), "width": 16, "head_width": 16, "image_size": 64}}
WORDS = torch.randint(1, 64, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind, tower", [("CLIP", "ViT"), pytest.param("CLIP", "ResNet", marks=pytest.mark.slow),
                                         pytest.param("CustomTextCLIP", "ViT", marks=pytest.mark.slow)])
def test_both_towers(kind, tower):
    torch.manual_seed(0)
    model = getattr(open_clip, kind)(embed_dim=32, vision_cfg=open_clip.CLIPVisionCfg(**TOWERS[tower]),
                                     text_cfg=open_clip.CLIPTextCfg(**TEXT)).eval()
    size = TOWERS[tower]["image_size"]
    inputs = {"image": torch.randn(2, 3, size, size), "text": WORDS}
    small = fxprune.compress(model, inputs, channels=0.5, form="module")
    record = fxprune.record(small)
    assert type(small) is type(model) and record.verification.ok and record.after.params < 0.3 * record.before.params
    image, text = small.encode_image(inputs["image"], normalize=True), small.encode_text(WORDS, normalize=True)
    both = small(**inputs)
    assert torch.allclose(image, both[0], atol=1e-6) and torch.allclose(text, both[1], atol=1e-6)
    logits, transposed = small.get_logits(**inputs)
    assert torch.allclose(logits, small.logit_scale.exp() * image @ text.T, atol=1e-5)
    assert torch.equal(logits.T, transposed) and image.shape == (2, 32)
    loss = open_clip.ClipLoss()(image, text, both[2])
    loss.backward()
    assert loss.isfinite() and small.logit_scale.grad is not None


def test_one_tower_put_back():
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=32, vision_cfg=open_clip.CLIPVisionCfg(**TOWERS["ViT"]),
                           text_cfg=open_clip.CLIPTextCfg(**TEXT)).eval()
    images = torch.randn(2, 3, 32, 32)
    model.visual = fxprune.compress(model.visual, images, channels=0.5, form="module")
    assert model.encode_image(images).shape == (2, 32) and model(images, WORDS)[1].shape == (2, 32)
