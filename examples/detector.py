"""Compress a detector. Its post-processing depends on the data and cannot be traced into a graph, so it comes back in
module mode: a shrunken copy of its own class, with its own Python.

    python examples/detector.py --channels 0.7
"""

import argparse
from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import fxprune


def main(arguments: Sequence[str] | None = None) -> nn.Module:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=float, default=0.7, help="the fraction of each group to keep")
    parser.add_argument("--size", type=int, default=320, help="of the images")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=options.size, max_size=2 * options.size
    ).eval()
    images = [torch.rand(3, options.size, options.size)]
    small = fxprune.compress(model, ([images[0]],), channels=options.channels)

    record = fxprune.record(small)
    print(record)
    print(type(small).__name__, [sorted(found) for found in small(images)])
    for group in record.coupling.groups.values():
        if group.frozen:
            print(f"whole: {group.name}, {group.size} channels: {group.frozen.why}")
    return small


if __name__ == "__main__":
    main()
