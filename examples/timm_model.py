"""Compress a timm model: a vision transformer, inside its heads or by whole heads.

    pip install 'fxprune[timm]'
    python examples/timm_model.py vit_tiny_patch16_224 --heads whole
"""

import argparse
from collections.abc import Sequence

import timm
from torch import nn

import fxprune


def main(arguments: Sequence[str] | None = None) -> nn.Module:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="vit_tiny_patch16_224")
    parser.add_argument("--heads", choices=("dims", "whole"), default="dims")
    parser.add_argument("--params", type=float, default=0.6, help="the fraction to keep")
    options = parser.parse_args(arguments)

    model = timm.create_model(options.name)                             # pretrained=True where there is a network
    # The input's size is inferred from the model's pretrained_cfg; the record says so.
    small = fxprune.compress(model, params=options.params, policy=fxprune.Policy(heads=options.heads))

    record = fxprune.record(small)
    print(record)
    print("inputs:", record.inputs.inferred)
    for name in list(record.before.widths)[:6]:
        print(f"{name:<24}{record.before.widths[name]:>6} → {record.after.widths[name]}")
    return small


if __name__ == "__main__":
    main()
