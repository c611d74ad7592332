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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fxprune.errors import FxpruneError, InputError, MissingExtraError, unknown
from fxprune.ir.signature import aliases

PRETRAINED = "pretrained"
# Keys under which training scripts keep the weights in a checkpoint.
NESTED = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and, in words, where its weights came from."""

    model: nn.Module
    weights: str


def load(name: str, weights: str | None = None, seed: int = 0) -> Loaded:
    """Build a model and give it its weights. The caller's random state is left as it was.

    Args:
        name: see the module's docstring.
        weights: a safetensors file, a file that ``torch.load(weights_only=True)`` reads, ``"pretrained"``, or None for
            random weights.
        seed: of the random initialisation.

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
        model = _build(name, pretrained)
    if not isinstance(model, nn.Module):
        raise InputError(f"MODEL must be, or return, a torch.nn.Module, but {name!r} gives a {type(model).__name__}")
    if pretrained:
        return Loaded(model, "pretrained weights")
    if weights is None:
        return Loaded(model, f"random weights (seed {seed})")
    load_weights(model, weights)
    return Loaded(model, f"weights from {weights}")


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Read a checkpoint into the model; nothing in the file is executed, and all keys must fit.

    Raises:
        InputError: the file cannot be read, or does not fit the model.
    """
    state = _state(Path(path))
    # A tensor under several names is stored once (safetensors), and serves all of them.
    state |= {name: state[given] for names in aliases(model).values() for given in names if given in state
              for name in names if name not in state}
    own = {key: value.shape for key, value in model.state_dict().items()}
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    if missing or extra:
        words = [f"{what} {_some(keys)}" for what, keys in (("lacks", missing), ("has besides", extra)) if keys]
        raise InputError(f"a checkpoint must hold exactly the model's state_dict, but {os.fspath(path)!r} "
                         f"{' and '.join(words)}; is it of another model?")
    for key, shape in own.items():
        if state[key].shape != shape:
            raise InputError(f"a checkpoint must hold the model's shapes, but in {os.fspath(path)!r} {key!r} is "
                             f"{list(state[key].shape)} and the model's is {list(shape)}; is it of another model?")
    model.load_state_dict(state)


def _build(name: str, pretrained: bool) -> Any:
    source, colon, target = name.rpartition(":")
    if not colon:
        return _torchvision(name, pretrained)
    if source == "timm":
        return _timm(target, pretrained)
    if pretrained:
        raise InputError(f"weights 'pretrained' exist for torchvision and timm names only, got {name!r}; name a "
                         "checkpoint file, or let the callable load its weights and leave them out")
    built = _attribute(_file(source) if source.endswith(".py") else _import(source), source, target)
    if isinstance(built, nn.Module) or not callable(built):
        return built
    try:
        return built()
    except FxpruneError:
        raise
    except Exception as error:
        raise InputError(f"{name!r} must be callable without arguments, but calling it raised "
                         f"{type(error).__name__}: {error}; name a function that builds the model") from error


def _torchvision(name: str, pretrained: bool) -> nn.Module:
    from torchvision import models

    if name not in models.list_models():
        raise InputError(f"{unknown('torchvision model', name, models.list_models())}; other models: timm:NAME, "
                         "package.module:callable or file.py:callable")
    builder = models.get_model_builder(name)
    # Detectors and segmenters download a backbone's weights unless told not to.
    backbone = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    if pretrained:
        return _download(lambda: builder(weights="DEFAULT"))
    return builder(weights=None, **backbone)


def _timm(name: str, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f"timm:{name} needs timm; write pip install 'fxprune[timm]'") from error
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(unknown("timm model", name, timm.list_models()))
    if pretrained:
        return _download(lambda: timm.create_model(name, pretrained=True))
    return timm.create_model(name)


def _download(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:
        raise InputError(f"pretrained weights must be downloaded once, and that failed ({type(error).__name__}: "
                         f"{error}); try again where there is a network, or name a checkpoint file") from error


def _file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise InputError(f"MODEL must name an existing file, but there is none at {path!r}")
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # Its neighbours can be imported, and classes find their module again (pickling, dataclasses).
    sys.path.insert(0, str(Path(path).resolve().parent))
    sys.modules.setdefault(name, module)

    def run() -> ModuleType:
        spec.loader.exec_module(module)
        return module

    return _ran(run, path)


def _import(name: str) -> ModuleType:
    # As ``python -m`` does, which console scripts do not.
    sys.path.insert(0, os.getcwd())
    return _ran(lambda: importlib.import_module(name), name)


def _ran(run: Callable[[], ModuleType], name: str) -> ModuleType:
    try:
        return run()
    except Exception as error:
        raise InputError(f"MODEL must name what can be imported, but importing {name!r} raised "
                         f"{type(error).__name__}: {error}") from error


def _attribute(module: ModuleType, source: str, target: str) -> Any:
    value: Any = module
    for part in target.split("."):
        if not hasattr(value, part):
            public = [key for key in vars(value) if not key.startswith("_")] if hasattr(value, "__dict__") else []
            raise InputError(f"{source}: {unknown('callable', target, public)}")
        value = getattr(value, part)
    return value


def _state(path: Path) -> dict[str, torch.Tensor]:
    state: Any
    if not path.is_file():
        raise InputError(f"weights must be a file or {PRETRAINED!r}, but there is no file at {os.fspath(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(f"weights must be a safetensors file or a state dict that torch.load(weights_only=True) "
                         f"reads, but {os.fspath(path)!r} is neither ({type(error).__name__}: {words})") from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in NESTED if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"weights must be a state dict, names to tensors, but {os.fspath(path)!r} holds "
                         f"{type(state).__name__} of other things; save model.state_dict()")
    return dict(state)


def _some(keys: list[str]) -> str:
    return ", ".join(map(repr, keys[:3])) + (f", … ({len(keys)} in all)" if len(keys) > 3 else "")
