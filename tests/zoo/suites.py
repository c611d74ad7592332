"""What is in the zoo: by suite, the names of the models and how each is built with its example inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.zoo import packages
from tests.zoo.configured import diffusers_models, transformers_models

Case = tuple[nn.Module, tuple[Any, ...] | dict[str, Any]]

DETECTORS = ("fasterrcnn", "fcos", "keypointrcnn", "maskrcnn", "retinanet", "ssd")
# Structure does not depend on the size of a picture, and verification in double precision takes its time: torchvision's
# nets get small pictures, but for those whose layers fix a size of their own.
SMALL = (1, 3, 64, 64)
SHAPES = {
    **dict.fromkeys(("vit", "maxvit"), (1, 3, 224, 224)),
    **dict.fromkeys(("r3d", "mc3", "r2plus1d"), (1, 3, 8, 56, 56)),
    "s3d": (1, 3, 16, 224, 224),
    "swin3d": (1, 3, 4, 64, 64),
    "mvit": (1, 3, 16, 224, 224),
    "inception_v3": (1, 3, 299, 299),
    **dict.fromkeys(("deeplabv3", "fcn", "lraspp"), (2, 3, 64, 64)),
}


def torchvision_names() -> list[str]:
    from torchvision.models import list_models

    return [name for name in list_models() if not name.startswith("quantized")]


def build_torchvision(name: str) -> Case:
    from torchvision.models import get_model

    options = {"aux_loss": True} if name.startswith(("deeplab", "fcn")) else {}
    backbone = {"weights_backbone": None} if name.startswith((*DETECTORS, "deeplab", "fcn", "lraspp")) else {}
    model = get_model(name, weights=None, **options, **backbone)
    if name.startswith("raft"):
        return model, (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128), 2)
    if name.startswith(DETECTORS):
        return model.eval(), ([torch.rand(3, 320, 320)],)
    shape = next((shape for start, shape in SHAPES.items() if name.startswith(start)), SMALL)
    return model, (torch.rand(shape),)


def timm_names() -> list[str]:
    return Path(__file__).with_name("timm.txt").read_text().split()


def build_timm(name: str) -> Case:
    import timm

    model = timm.create_model(name, pretrained=False)
    return model, (torch.rand(1, *model.default_cfg["input_size"]),)


def beyond_names() -> list[str]:
    from tests.zoo.beyond import CASES

    return list(CASES)


def build_beyond(name: str) -> Case:
    from tests.zoo.beyond import CASES

    return CASES[name]()


SUITES: dict[str, tuple[Callable[[], list[str]], Callable[[str], Case]]] = {
    "torchvision": (torchvision_names, build_torchvision),
    "timm": (timm_names, build_timm),
    "beyond": (beyond_names, build_beyond),
    "packages": (packages.names, packages.build),
    "transformers": (transformers_models.names, transformers_models.build),
    "diffusers": (diffusers_models.names, diffusers_models.build),
}
