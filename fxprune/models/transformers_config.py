"""A transformers model from its ``config.json``, without weights."""

import json
import os
from pathlib import Path

import torch
from torch import nn

from fxprune.errors import InputError, MissingExtraError


def from_config(path: str | os.PathLike[str]) -> nn.Module:
    """The model that a transformers config describes, on the meta device, in eval mode and without caches.

    Args:
        path: ``config.json``, or a folder with one. No code is taken from there: the class named in
            ``architectures`` must be one of the installed transformers.

    Raises:
        MissingExtraError: transformers is not installed.
        InputError: no such file, or no config of a class that transformers has.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("--config needs transformers; write pip install transformers, or name a MODEL of your "
                                "own in its place") from error
    place = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        config = transformers.AutoConfig.from_pretrained(str(place), trust_remote_code=False)
        names = json.loads(place.read_text()).get("architectures") or []
    except (OSError, ValueError) as error:
        raise InputError(f"--config must be a transformers config.json, or a folder with one, and {str(path)!r} is "
                         f"not: {str(error).splitlines()[0]}") from error
    kind = next((getattr(transformers, name, None) for name in names), None)
    if kind is None:
        raise InputError(f"--config must name in architectures a class of transformers {transformers.__version__}, "
                         f"got {names}; write a function that builds the model, and --model file.py:function")
    config.use_cache = False
    with torch.device("meta"):
        model: nn.Module = kind(config)
    return model.eval()
