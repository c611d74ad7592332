"""Models by name with their checkpoints, and networks of the examples that torchvision does not carry."""

from fxprune.models.checkpoints import load_weights
from fxprune.models.cifar import CifarResNet, cifar_resnet, resnet20, resnet32, resnet56, resnet110
from fxprune.models.named import Loaded, load

__all__ = ["CifarResNet", "Loaded", "cifar_resnet", "load", "load_weights", "resnet20", "resnet32", "resnet56",
           "resnet110"]
