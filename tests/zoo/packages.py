"""Models of packages that are no dependency: those that are installed are tried.

    pip install ultralytics segmentation-models-pytorch
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

YOLO = """yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov8n-pose yolov8n-obb yolov8n-cls yolov8n-ghost yolov8n-p2
yolov9t yolov10n yolo11n yolo11n-seg yolo12n yolo26n rtdetr-resnet50""".split()
DECODERS = "Unet UnetPlusPlus MAnet Linknet FPN PSPNet DeepLabV3 DeepLabV3Plus UPerNet".split()
ENCODERS = """mobilenet_v2 efficientnet-b0 mit_b0 densenet121 vgg11_bn se_resnet50 timm-regnetx_002 resnext50_32x4d
dpn68 xception inceptionv4 mobileone_s0 timm-mobilenetv3_small_100""".split()


def yolo(name: str) -> nn.Module:
    from ultralytics.nn import tasks

    kinds = {"seg": tasks.SegmentationModel, "pose": tasks.PoseModel, "obb": tasks.OBBModel,
             "cls": tasks.ClassificationModel, "resnet50": tasks.RTDETRDetectionModel}
    return kinds.get(name.rpartition("-")[2], tasks.DetectionModel)(f"{name}.yaml", verbose=False)


def segmentation(decoder: str, encoder: str, **options: Any) -> nn.Module:
    import segmentation_models_pytorch

    return getattr(segmentation_models_pytorch, decoder)(encoder_name=encoder, encoder_weights=None, **options)


# Name -> its package, how it is made, and the side of its pictures.
MODELS: dict[str, tuple[str, Callable[[], nn.Module], int]] = {
    **{f"ultralytics_{name}": ("ultralytics", partial(yolo, name), 128) for name in YOLO},
    **{f"smp_{decoder}": ("segmentation_models_pytorch", partial(segmentation, decoder, "resnet18"), 64)
       for decoder in DECODERS},
    **{f"smp_Unet_{encoder}": ("segmentation_models_pytorch", partial(segmentation, "Unet", encoder), 64)
       for encoder in ENCODERS},
    "smp_Segformer": ("segmentation_models_pytorch", partial(segmentation, "Segformer", "mit_b0"), 64),
    "smp_Unet_scse": ("segmentation_models_pytorch",
                      partial(segmentation, "Unet", "resnet18", decoder_attention_type="scse"), 64),
}


def names() -> list[str]:
    return [name for name, (package, _, _) in MODELS.items() if find_spec(package)]


def build(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    _, make, side = MODELS[name]
    return make(), (torch.rand(1, 3, side, side),)
