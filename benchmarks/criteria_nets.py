"""The networks of `criteria.py`, trained, with what they are tried on.

    PYTHONPATH=examples python -m benchmarks.criteria_nets --data cifar10.npz --out runs/criteria

trains, in half an hour on two cores, those whose checkpoints `cifar10_resnet.py` does not write: a MobileNetV2 of
half the width on CIFAR-10, and the net of `digits_dwgl.py` on scikit-learn's digits. `--resume` goes on with a
training that was broken off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import digits_dwgl
import torch
from cifar10 import Split, load_cifar10, normalise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import MobileNetV2
from training import Config, fit

from fxprune.models import cifar_resnet

CHECKPOINTS = Path(__file__).resolve().parents[1] / "examples" / "checkpoints"
Halves = tuple[Split, Split]


def mobilenet() -> nn.Module:
    """MobileNetV2 of half the width for images of 32 pixels: of its five strides of 2 the first and the last are 1."""
    net = MobileNetV2(num_classes=10, width_mult=0.5, inverted_residual_setting=[
        [1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 1], [6, 320, 1, 1]])
    net.features[0][0].stride = (1, 1)
    return net


def digits(path: str) -> Halves:
    """Of scikit-learn, wherever CIFAR-10 lies."""
    train, test = digits_dwgl.digits(0)
    return Split(*train), Split(*test)


@dataclass(frozen=True)
class Net:
    """A network of the table.

    Args:
        title: what it is called there, with its data.
        build: makes it, untrained.
        halves: the images to calibrate with and those to test on, where CIFAR-10 lies in this file.
        ready: from stored images to what the network takes.
    """

    title: str
    build: Callable[[], nn.Module]
    halves: Callable[[str], Halves] = load_cifar10
    ready: Callable[[Tensor], Tensor] = lambda images: normalise(images).contiguous()


NETS = {
    "resnet20": Net("ResNet-20, CIFAR-10", partial(cifar_resnet, 20)),
    "resnet56": Net("ResNet-56, CIFAR-10", partial(cifar_resnet, 56)),
    "mobilenet": Net("MobileNetV2 of half the width, CIFAR-10", mobilenet),
    "digits": Net("The net of `digits_dwgl.py`, digits", digits_dwgl.Net, digits, lambda images: images),
}


def trained(name: str) -> nn.Module:
    """By its name in `NETS`, from its checkpoint."""
    model, path = NETS[name].build(), CHECKPOINTS / f"{name}.safetensors"
    if not path.exists():
        raise SystemExit(f"{path.name} is not there: run benchmarks.criteria_nets, or leave {name} out of --nets")
    model.load_state_dict(load_file(path))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: a torchvision folder, or a .npz")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--out", type=Path, default=Path("runs/criteria"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    small = digits_dwgl.Net()
    digits_dwgl.fit(small, digits_dwgl.digits(0)[0], 20, "digits")
    save_file(small.state_dict(), CHECKPOINTS / "digits.safetensors")
    model = mobilenet()
    fit(model, *load_cifar10(args.data), Config(epochs=args.epochs, weight_decay=1e-4), args.out / "mobilenet",
        label="mobilenet", resume=args.resume)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()},
              CHECKPOINTS / "mobilenet.safetensors")


if __name__ == "__main__":
    main()
