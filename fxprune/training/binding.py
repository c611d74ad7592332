"""Where a model keeps the parameters that a coupling names, whatever it has been wrapped in since.

``DistributedDataParallel``, ``DataParallel`` and ``AveragedModel`` hold the model as ``module``, ``torch.compile`` as
``_orig_mod`` (at the root or around a part of it), activation checkpointing and FSDP put names of their own in between.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from fxprune.capture.holdings import own_modules, own_parameters
from fxprune.capture.model_walk import named_tensors
from fxprune.errors import InputError
from fxprune.ir.signature import Signature

ROOTS = ("_orig_mod", "module")
SEGMENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers around submodules put in between.

    >>> plain_name("layer1._orig_mod.0.conv1.weight")
    'layer1.0.conv1.weight'
    """
    return ".".join(part for part in name.split(".") if part not in SEGMENTS)


def unwrap(model: nn.Module, signature: Signature) -> nn.Module:
    """The module inside ``model`` that has this signature; dtypes may differ.

    Raises:
        InputError: there is none.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}; pass the model that the "
                         "coupling was drawn from: dwgl(model)")
    difference = ""
    for candidate in _nested(model):
        difference = _difference(candidate, signature)
        if not difference:
            return candidate
    raise InputError(f"the coupling must come from this model, but {difference}; write "
                     "coupling = fxprune.analyze(model) after the last change to the model's structure")


def _nested(model: nn.Module) -> Iterator[nn.Module]:
    inner: nn.Module | None = model
    while inner is not None:
        yield inner
        inner = next(filter(None.__ne__, map(own_modules(inner).get, ROOTS)), None)


def _difference(model: nn.Module, signature: Signature) -> str:
    mine = {plain_name(name): tuple(tensor.shape) for name, tensor in named_tensors(model)}
    theirs = {name: shape for name, shape, _ in signature.entries}
    for name in [*theirs, *mine]:
        if mine.get(name) != theirs.get(name):
            words = ["absent" if shape is None else str(list(shape)) for shape in (theirs.get(name), mine.get(name))]
            return f"{name!r} is {words[0]} in the coupling and {words[1]} in the model"
    return ""


@dataclass(frozen=True, eq=False)
class Binding:
    """Finds the named parameters of one model again at each call, without walking its names; keeps nothing alive."""

    root: weakref.ref[nn.Module]
    modules: tuple[weakref.ref[nn.Module], ...]
    places: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, model: nn.Module, signature: Signature, names: tuple[str, ...]) -> "Binding":
        """
        Raises:
            InputError: the model is not the one that the signature describes.
        """
        root = unwrap(model, signature)
        modules = list(root.modules())
        position = {id(module): i for i, module in enumerate(modules)}
        found = {plain_name(f"{prefix}.{leaf}" if prefix else leaf): (position[id(module)], leaf)
                 for prefix, module in root.named_modules(remove_duplicate=False) for leaf in own_parameters(module)}
        missing = next((name for name in names if name not in found), None)
        if missing is not None:
            raise InputError(f"{missing!r} must be a parameter of the model, but it is a buffer or computed there; "
                             "write coupling = fxprune.analyze(model) after the last change to the model's structure")
        return cls(weakref.ref(root), tuple(map(weakref.ref, modules)), tuple(found[name] for name in names))

    def parameters(self) -> list[torch.Tensor] | None:
        """The parameters, in the names' order; None if modules have been replaced since, and a new binding is due."""
        root = self.root()
        modules = [] if root is None else list(root.modules())
        if len(modules) != len(self.modules) or any(r() is not m for r, m in zip(self.modules, modules, strict=True)):
            return None
        found = [own_parameters(modules[at]).get(leaf) for at, leaf in self.places]
        there: list[torch.Tensor] = [tensor for tensor in found if tensor is not None]
        return there if len(there) == len(found) else None
