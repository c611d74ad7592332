"""Results with segmentation-models-pytorch's own API."""

import subprocess
import sys

import pytest
import torch

import fxprune

smp = pytest.importorskip("segmentation_models_pytorch")
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def compressed(kind="Unet", **options):
    torch.manual_seed(0)
    model = getattr(smp, kind)("resnet18", encoder_weights=None, classes=2).eval()
    return fxprune.compress(model, X, form="module", **{"channels": 0.5, **options})


@pytest.mark.parametrize("kind", ["Unet", *(pytest.param(kind, marks=pytest.mark.slow) for kind in (
    "FPN", "DeepLabV3Plus", "UnetPlusPlus", "Linknet", "MAnet", "Segformer", "UPerNet"))])
def test_encoder_and_predict(kind):
    small = compressed(kind)
    assert type(small) is getattr(smp, kind) and fxprune.record(small).verification.ok
    features = small.encoder(X)
    assert [f.shape[1] for f in features] == list(small.encoder.out_channels) == [3, 32, 32, 64, 128, 256]
    assert torch.equal(small.segmentation_head(small.decoder(features)), small(X))
    assert torch.equal(small.train().predict(X), small.eval()(X))
    if small.requires_divisible_input_shape:
        with pytest.raises(RuntimeError, match="divisible by"):
            small.predict(torch.randn(1, 3, 60, 64))


@pytest.mark.slow
def test_a_smaller_decoder_is_said_by_the_configuration(tmp_path):
    small = compressed(groups=["decoder.*"])
    small.save_pretrained(tmp_path)
    torch.save((X, small(X)), tmp_path / "wanted.pt")
    code = ("import sys; sys.modules['fxprune'] = None\nimport torch, segmentation_models_pytorch as smp\n"
            f"net = smp.from_pretrained({str(tmp_path)!r}).eval()\n"
            f"x, wanted = torch.load({str(tmp_path / 'wanted.pt')!r})\nprint(torch.equal(net(x), wanted))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("True\n"), done.stderr
    assert small.config["decoder_channels"] == [128, 64, 32, 16, 8]


@pytest.mark.slow
def test_a_smaller_encoder_is_refused(tmp_path):
    with pytest.raises(fxprune.UnsupportedError, match=r"none of Unet's configurations says this result: "
                                                       r"encoder\.conv1\.weight has shape \[32, 3, 7, 7\] here"):
        compressed().save_pretrained(tmp_path)
