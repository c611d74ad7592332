"""Results with MONAI's sliding window."""

import pytest
import torch

import fxprune

pytest.importorskip("monai")
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from monai.networks import nets

NETS = {
    "UNet": (lambda: nets.UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=2), (32, 32)),
    "UNet 3-D": (lambda: nets.UNet(3, 1, 2, (8, 16, 32), (2, 2), num_res_units=2), (32, 32, 32)),
    "SegResNet": (lambda: nets.SegResNet(2, init_filters=8, in_channels=1, out_channels=2), (32, 32)),
    "DynUNet": (lambda: nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32]), (32, 32)),
    "BasicUNet": (lambda: nets.BasicUNet(2, 1, 2, (8, 8, 16, 16, 32, 8)), (32, 32)),
}


@pytest.mark.parametrize("name", [name if name == "UNet" else pytest.param(name, marks=pytest.mark.slow)
                                  for name in NETS])
def test_sliding_window(name):
    torch.manual_seed(0)
    make, window = NETS[name]
    model = make().eval()
    small = fxprune.compress(model, torch.randn(1, 1, *window), channels=0.5, form="module")
    assert type(small) is type(model) and fxprune.record(small).verification.ok
    image = torch.randn(1, 1, *(length + 16 for length in window))
    with torch.no_grad():
        out = sliding_window_inference(image, window, 2, small, overlap=0.5)
        assert out.shape == (1, 2, *image.shape[2:])
        # A window alone is the result itself; and the class that holds the settings does the same.
        inside = image[(slice(None), slice(None), *(slice(length) for length in window))]
        assert torch.allclose(sliding_window_inference(inside, window, 1, small), small(inside), atol=1e-5)
        assert torch.allclose(SlidingWindowInferer(window, 2, overlap=0.5)(image, small), out, atol=1e-5)
