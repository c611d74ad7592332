"""Compress a segmentation network with an auxiliary head: the result returns the same dict, in both modes.

    python examples/segmentation.py --macs 0.5
"""

import argparse
from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import fxprune


def main(arguments: Sequence[str] | None = None) -> nn.Module:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--macs", type=float, default=0.5, help="the fraction to keep")
    parser.add_argument("--size", type=int, default=256, help="of the images")
    options = parser.parse_args(arguments)

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=8)
    images = torch.randn(2, 3, options.size, options.size)
    small = fxprune.compress(model, images, macs=options.macs)

    print(fxprune.record(small))
    # Images of another size than the example's: sizes are computed when the result runs, as the original does it.
    for height, width in ((options.size, options.size), (96, 160)):
        maps = small(torch.randn(2, 3, height, width))
        print({name: tuple(value.shape) for name, value in maps.items()})
    return small


if __name__ == "__main__":
    main()
