"""Networks that the examples and the tests use and that torchvision does not carry."""

from fxprune.models.cifar import CifarResNet, cifar_resnet, resnet20, resnet32, resnet56, resnet110

__all__ = ["CifarResNet", "cifar_resnet", "resnet20", "resnet32", "resnet56", "resnet110"]
