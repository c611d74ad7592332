"""Example inputs by the arguments of a model's forward."""

import inspect
from typing import Any

import torch
from torch import nn

TOKENS = torch.arange(14).reshape(2, 7) % 40 + 3
MAKERS: dict[str, Any] = {
    "input_ids": lambda config: TOKENS,
    "decoder_input_ids": lambda config: TOKENS[:, :5],
    "pixel_values": lambda config: torch.rand(2, _channels(config), _side(config), _side(config)),
    "input_values": lambda config: torch.rand(2, 400),
    "input_features": lambda config: torch.rand(2, getattr(config, "num_mel_bins", 16), 40),
}


def _channels(config: Any) -> int:
    return getattr(config, "num_channels", 3)


def _side(config: Any) -> int:
    side = getattr(config, "image_size", 32)
    return side if isinstance(side, int) else side[0]


def example(model: nn.Module, config: Any) -> dict[str, Any]:
    """Tokens, pictures, waves or features, whichever the model's first argument is, and what a decoder starts from."""
    accepted = inspect.signature(model.forward).parameters
    main = model.main_input_name if model.main_input_name in accepted else next(iter(accepted))
    names = [main, *(name for name in ("decoder_input_ids",) if name in accepted and name != main)]
    return {name: MAKERS[name](config) for name in names}
