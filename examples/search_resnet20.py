"""What a plan for the CIFAR-10 ResNet-20 is worth, for `fxprune search`; and what the search gained, on test images.

    export SEARCH_DATA=cifar10.npz
    fxprune search fxprune.models:resnet20 --weights examples/checkpoints/resnet20.safetensors --input 2,3,32,32 \\
        --macs 0.5 --by group --recover statistics --data examples/search_resnet20.py:batches --samples 1024 \\
        --evaluate examples/search_resnet20.py:accuracy --trials 200 --workers 2 --storage sqlite:///search.db \\
        --search-seed 0 --out found/
    python examples/search_resnet20.py found/

Plans are chosen on images of the training set and compared on those of the test set, which the search never sees.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import torch
from cifar10 import Split, load_cifar10, normalise, validation_split
from torch import Tensor, nn
from training import evaluate

import fxprune
from fxprune.models import load_weights, resnet20

CHOOSING, CALIBRATING = 2000, 1024
WEIGHTS = Path(__file__).parent / "checkpoints" / "resnet20.safetensors"


@cache
def splits() -> tuple[Split, Split, Split]:
    """Images to calibrate on, to choose plans by, and to test on."""
    train, test = load_cifar10(os.environ.get("SEARCH_DATA", "runs/cifar10.npz"))
    rest, choosing = validation_split(train, min(CHOOSING, len(train) // 2))
    return rest, choosing, test


def batches() -> list[Tensor]:
    """Images without labels, for statistics."""
    images = splits()[0].images[:CALIBRATING]
    return [normalise(part) for part in torch.split(images, 128)]


def accuracy(small: nn.Module) -> float:
    """In percent, on the images that plans are chosen by."""
    choosing = splits()[1]
    return evaluate(small, choosing.images, choosing.labels)


def main(arguments: list[str] | None = None) -> tuple[float, float, float]:
    """Accuracy on the test images: of the original, of the plan that `fxprune.plan` draws, and of the search's."""
    folder, = sys.argv[1:] if arguments is None else arguments
    model, test = resnet20(), splits()[2]
    load_weights(model, WEIGHTS)
    found = fxprune.load(folder, model=model)
    drawn = fxprune.compress(model, torch.randn(2, 3, 32, 32), macs=0.5, recover="statistics", data=batches(),
                             samples=CALIBRATING)
    original, before, after = (evaluate(net, test.images, test.labels) for net in (model, drawn, found))
    for name, net, value in (("original", model, original), ("macs=0.5", drawn, before), ("searched", found, after)):
        kept = "" if net is model else f", {fxprune.record(net).after.macs / fxprune.record(net).before.macs:.1%} MACs"
        print(f"{name}: {value:.2f} % of {len(test)} test images{kept}")
    return original, before, after


if __name__ == "__main__":
    main()
