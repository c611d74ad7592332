"""How packages state a model, so that they can build it anew: a configuration, and what builds from it.

transformers holds an object with ``to_dict``; diffusers a frozen mapping that ``register_to_config`` replaces; a class
with huggingface_hub's mixin (segmentation-models-pytorch) the dictionary of its constructor's arguments.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxprune.capture.model_walk import named_modules

# A field of a configuration: names, and indices in lists.
Field = tuple[Any, ...]
_HUB = "_hub_mixin_config"


@dataclass(frozen=True)
class Package:
    """One way of stating a model.

    Args:
        stated: whether a model is stated like that.
        name: of such configurations, in messages.
        fields: all that its configuration says.
        build: a model of the same class, from changed fields.
        state: make a smaller copy say them.
    """

    stated: Callable[[nn.Module], bool]
    name: Callable[[Any], str]
    fields: Callable[[Any], Mapping[str, Any]]
    build: Callable[[Any, Mapping[Field, Any]], nn.Module]
    state: Callable[[Any, Mapping[Field, Any]], None]


def package_of(model: nn.Module) -> Package | None:
    """What states the model, where its package builds models from configurations."""
    if not hasattr(model, "save_pretrained"):
        return None
    return next((package for package in PACKAGES if package.stated(model)), None)


def changed(config: Any, changes: Mapping[Field, Any]) -> Any:
    """A copy of a configuration, or of a dictionary, with other fields.

    >>> changed({"widths": [8, 16], "groups": 4}, {("widths", 1): 12})
    {'widths': [8, 12], 'groups': 4}
    """
    config = copy.deepcopy(config)
    for field, value in changes.items():
        _set(config, field, value)
    return config


def _set(config: Any, field: Field, value: Any) -> None:
    *path, last = field
    owner = config
    for key in path[:-1] if isinstance(last, int) else path:
        owner = owner[key] if isinstance(owner, dict) else getattr(owner, key)
    if isinstance(last, int):
        items = list(owner[path[-1]] if isinstance(owner, dict) else getattr(owner, path[-1]))
        items[last] = value
        last, value = path[-1], type(items)(items)
    if isinstance(owner, dict):
        owner[last] = value
    else:
        setattr(owner, last, value)


def _build_transformers(model: Any, changes: Mapping[Field, Any]) -> nn.Module:
    config = changed(model.config, changes)
    getattr(config, "validate", lambda: None)()
    built: nn.Module = type(model)(config)
    return built


def _state_transformers(small: Any, changes: Mapping[Field, Any]) -> None:
    """Parts of a model may hold copies of its configuration."""
    for owner in {id(module.config): module.config for _, module in named_modules(small)
                  if type(getattr(module, "config", None)) is type(small.config)}.values():
        for field, value in changes.items():
            _set(owner, field, value)


def _build_diffusers(model: Any, changes: Mapping[Field, Any]) -> nn.Module:
    built: nn.Module = type(model).from_config(changed(dict(model.config), changes))
    return built


def _state_diffusers(small: Any, changes: Mapping[Field, Any]) -> None:
    fields = changed(dict(small.config), changes)
    small.register_to_config(**{name: fields[name] for name in {field[0] for field in changes}})


def _build_hub(model: Any, changes: Mapping[Field, Any]) -> nn.Module:
    """Without the weights that a constructor would download; only shapes are asked for."""
    fields = changed(getattr(model, _HUB), changes)
    built: nn.Module = type(model)(**{name: None if name.endswith("weights") else value
                                      for name, value in fields.items()})
    return built


def _state_hub(small: Any, changes: Mapping[Field, Any]) -> None:
    setattr(small, _HUB, changed(getattr(small, _HUB), changes))


def _of_class(model: nn.Module) -> str:
    return f"{type(model).__name__}'s configurations"


PACKAGES = (
    Package(lambda model: hasattr(getattr(model, "config", None), "to_dict"), lambda model: type(model.config).__name__,
            lambda model: model.config.to_dict(), _build_transformers, _state_transformers),
    Package(lambda model: hasattr(model, "register_to_config"), _of_class,
            lambda model: dict(model.config), _build_diffusers, _state_diffusers),
    Package(lambda model: isinstance(getattr(model, _HUB, None), dict), _of_class,
            lambda model: getattr(model, _HUB), _build_hub, _state_hub),
)
