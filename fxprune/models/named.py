"""Models by name, as the command line takes them.

==========================  ===========================================================================================
``resnet50``                a torchvision model
``timm:convnext_atto``      a timm model, where timm is installed
``package.module:build``    a callable without arguments (or a module object) that can be imported
``nets.py:build``           the same in a file; the file is run
==========================  ===========================================================================================
"""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fxprune.errors import FxpruneError, InputError, MissingExtraError, unknown
from fxprune.models.checkpoints import load_weights

PRETRAINED = "pretrained"
FORMS = "a torchvision name, timm:NAME, package.module:callable or file.py:callable"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and, in words, where its weights came from."""

    model: nn.Module
    weights: str


def load(name: str, weights: str | None = None, seed: int = 0, *, key: str | None = None, strict: bool = True,
         num_classes: int | None = None) -> Loaded:
    """Build a model and give it its weights. The caller's random state is left as it was.

    Args:
        name: see the module's docstring.
        weights: a safetensors file, a file that ``torch.load(weights_only=True)`` reads, ``"pretrained"``, or None for
            random weights.
        seed: of the random initialisation.
        key, strict: which state dict of the file, and whether all of it must fit; see `load_weights`.
        num_classes: of the head, for torchvision and timm models, and for callables that take it; theirs where None.

    Raises:
        InputError: no such model, or weights that do not fit.
        MissingExtraError: timm is not installed.

    >>> loaded = load("squeezenet1_1", seed=3)
    >>> type(loaded.model).__name__, loaded.weights
    ('SqueezeNet', 'random weights (seed 3)')
    """
    pretrained = weights == PRETRAINED
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(name, pretrained, {} if num_classes is None else {"num_classes": num_classes})
    if not isinstance(model, nn.Module):
        raise InputError(f"MODEL must be, or return, a torch.nn.Module, but {name!r} gives a {type(model).__name__}")
    if pretrained:
        return Loaded(model, "pretrained weights")
    if weights is None:
        return Loaded(model, f"random weights (seed {seed})")
    return Loaded(model, load_weights(model, weights, key, strict))


def _build(name: str, pretrained: bool, head: dict[str, Any]) -> Any:
    source, colon, target = name.rpartition(":")
    if not colon:
        return _torchvision(name, pretrained, head)
    if source == "timm":
        return _timm(target, pretrained, head)
    if pretrained:
        raise InputError(f"weights 'pretrained' exist for torchvision and timm names only, got {name!r}; name a "
                         "checkpoint file, or let the callable load its weights and leave them out")
    built = imported(name, "MODEL")
    if head and not (callable(built) and head.keys() <= _named_arguments(built)):
        raise InputError("num_classes is for torchvision and timm names, and for callables that take it, got "
                         f"{name!r}; let the callable take num_classes, or build the model with the head that it needs")
    if isinstance(built, nn.Module) or not callable(built):
        return built
    try:
        return built(**head)
    except FxpruneError:
        raise
    except Exception as error:
        raise InputError(f"{name!r} must be callable without arguments, but calling it raised "
                         f"{type(error).__name__}: {error}; name a function that builds the model") from error


def _named_arguments(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters) if not isinstance(function, nn.Module) else set()
    except ValueError:  # one without a signature
        return set()


def imported(name: str, what: str) -> Any:
    """The object that ``file.py:name`` or ``package.module:name`` stands for.

    Args:
        name: what was written.
        what: it was written for, as errors call it.

    Raises:
        InputError: no such file, module or name.

    >>> imported("fractions:Fraction", "--data")
    <class 'fractions.Fraction'>
    """
    source, colon, target = name.rpartition(":")
    if not colon or not source or not target:
        raise InputError(f"{what} must be file.py:name or package.module:name, got {name!r}")
    return _attribute(_file(source, what) if source.endswith(".py") else _import(source, what), source, target)


def _torchvision(name: str, pretrained: bool, head: dict[str, Any]) -> nn.Module:
    from torchvision import models

    if name.endswith(".py"):
        raise InputError(f"MODEL must be {FORMS}, and {name!r} says which file, but not which callable in it; write "
                         f"{name}:build, for a class or a function of that name")
    known = name in models.list_models()
    if os.sep in name or name.startswith(".") or os.path.isdir(name) and not known:
        there = "a folder or file, which no model is built from" if os.path.exists(name) else "not there"
        raise InputError(f"MODEL must be {FORMS}, but {name!r} is {there}; the command bench takes folders that "
                         "compress --out wrote")
    if not known:
        raise InputError(f"{unknown('torchvision model', name, models.list_models())}; a model is {FORMS}")
    builder = models.get_model_builder(name)
    # Detectors and segmenters download a backbone's weights unless told not to.
    backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    if pretrained:
        return _download(lambda: builder(weights="DEFAULT", **head))
    return builder(weights=None, **backbone, **head)


def _timm(name: str, pretrained: bool, head: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f"timm:{name} needs timm; write pip install 'fxprune[timm]'") from error
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(unknown("timm model", name, timm.list_models()))
    if pretrained:
        return _download(lambda: timm.create_model(name, pretrained=True, **head))
    return timm.create_model(name, **head)


def _download(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:
        raise InputError(f"pretrained weights must be downloaded once, and that failed ({type(error).__name__}: "
                         f"{error}); try again where there is a network, or name a checkpoint file") from error


def _file(path: str, what: str) -> ModuleType:
    if not os.path.isfile(path):
        raise InputError(f"{what} must name an existing file, but there is none at {path!r}")
    name = Path(path).stem
    loader = SourceFileLoader(name, path)
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=path))
    module.__file__ = path
    # Its neighbours can be imported, and classes find their module again (pickling, dataclasses).
    sys.path.insert(0, str(Path(path).resolve().parent))
    sys.modules.setdefault(name, module)

    def run() -> ModuleType:
        loader.exec_module(module)
        return module

    return _ran(run, path, what)


def _import(name: str, what: str) -> ModuleType:
    # As ``python -m`` does, which console scripts do not.
    sys.path.insert(0, os.getcwd())
    return _ran(lambda: importlib.import_module(name), name, what)


def _ran(run: Callable[[], ModuleType], name: str, what: str) -> ModuleType:
    try:
        return run()
    except Exception as error:
        raise InputError(f"{what} must name what can be imported, but importing {name!r} raised "
                         f"{type(error).__name__}: {error}") from error


def _attribute(module: ModuleType, source: str, target: str) -> Any:
    value: Any = module
    for part in target.split("."):
        if not hasattr(value, part):
            public = [key for key in vars(value) if not key.startswith("_")] if hasattr(value, "__dict__") else []
            raise InputError(f"{source}: {unknown('callable', target, public)}")
        value = getattr(value, part)
    return value
