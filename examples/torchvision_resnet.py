"""Compress a torchvision ResNet to half of its multiply-accumulates, and look at what was done.

    python examples/torchvision_resnet.py resnet50 --macs 0.5
"""

import argparse
from collections.abc import Sequence

import torch
import torchvision
from torch import nn

import fxprune


def main(arguments: Sequence[str] | None = None) -> nn.Module:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="resnet50")
    parser.add_argument("--macs", type=float, default=0.5, help="the fraction to keep")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    options = parser.parse_args(arguments)

    model = torchvision.models.get_model(options.name, weights=None)    # weights="DEFAULT" where there is a network
    images = torch.randn(1, 3, options.size, options.size)
    small = fxprune.compress(model, images, macs=options.macs, round_to=8)

    record = fxprune.record(small)
    print(record)
    print(record.verification)
    for name, width in record.before.widths.items():
        print(f"{name:<24}{width:>6} → {record.after.widths[name]}")
    return small


if __name__ == "__main__":
    main()
