"""``weights.safetensors``: written from a module, and read as the untrusted file that it is."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxprune.errors import ArtefactError, InputError
from fxprune.ir.strict_json import parsed

# Bytes of the header that lists the tensors.
HEADER = 64 * 2 ** 20
TENSORS = 1_000_000


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, constants included, each under the first of its names."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def write_weights(module: nn.Module, path: Path, notes: Mapping[str, str]) -> None:
    """Write what `state_of` finds.

    Raises:
        InputError: a tensor holds NaN, which no loader would take, or its name is half a character.
    """
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state_of(module).items()}
    refuse_nan(state, InputError)
    half = next((name for name in state if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if half is not None:
        raise InputError(f"names must be whole characters to be written to a file, but {half!r} is not; rename it")
    save_file(state, str(path), metadata=dict(notes))


def read_notes(path: Path) -> dict[str, str]:
    """The words that lie beside the tensors.

    Raises:
        ArtefactError: the file is damaged.
    """
    notes = header(path).get("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise ArtefactError(f"damaged file: the notes of {path.name} must be words")
    return notes


def read_weights(module: nn.Module, path: Path) -> None:
    """Copy the file's tensors into a module, whose names and shapes they must have; floating dtypes are the file's.

    Raises:
        ArtefactError: the file is damaged, or of another model.
    """
    from safetensors.torch import load_file

    own = state_of(module)
    listed = {name: entry for name, entry in header(path).items() if name != "__metadata__"}
    missing, extra = sorted(own.keys() - listed.keys()), sorted(listed.keys() - own.keys())
    if missing or extra:
        words = [f"{what} {names[0]!r} ({len(names)} in all)" for what, names in (("lacks", missing),
                                                                                  ("has besides", extra)) if names]
        raise ArtefactError(f"{path.name} must hold exactly this model's tensors, but it {' and '.join(words)}; is it "
                            "of another model?")
    for name, tensor in own.items():
        if listed[name].get("shape") != list(tensor.shape):
            raise ArtefactError(f"{path.name}: {name!r} must have the shape {list(tensor.shape)}, got "
                                f"{str(listed[name].get('shape'))[:80]}; is it of another model?")
    try:
        state = load_file(path)
    except Exception as error:
        raise ArtefactError(f"damaged file: {path.name} cannot be read ({_words(error)}); save it again") from error
    for name, tensor in own.items():
        if state[name].dtype != tensor.dtype and not (state[name].is_floating_point() and tensor.is_floating_point()):
            raise ArtefactError(f"{path.name}: {name!r} must be {tensor.dtype}, got {state[name].dtype}; is it of "
                                "another model?")
    refuse_nan(state, ArtefactError)
    with torch.no_grad():
        for name, tensor in own.items():
            # The compressed model may have been converted (half) since it was made.
            tensor.data = tensor.data.to(state[name].dtype)
            tensor.copy_(state[name])


def refuse_nan(state: Mapping[str, torch.Tensor], error: type[Exception]) -> None:
    """No tensor holds NaN (infinities, as in masks, are fine)."""
    for name, tensor in state.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and bool(tensor.isnan().any()):
            raise error(f"weights must be numbers, but {name!r} holds NaN; did the training diverge?")


def header(path: Path) -> dict[str, Any]:
    """The list of tensors: its form, its counts, and that it describes the whole file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(HEADER, size - 8):
            raise ArtefactError(f"damaged file: {path.name} is no safetensors file, or was cut short")
        text = file.read(length)
    try:
        header = parsed(text)
    except ValueError as error:
        raise ArtefactError(f"damaged file: the list of tensors in {path.name} is not valid JSON ({error})") from None
    if not isinstance(header, dict) or len(header) > TENSORS:
        raise ArtefactError(f"damaged file: {path.name} must list at most {TENSORS:,} tensors")
    for name, entry in header.items():
        if name != "__metadata__" and not _is_entry(entry, size - 8 - length):
            raise ArtefactError(f"damaged file: {path.name}: {name!r} is described by {json.dumps(entry)[:80]}, and "
                                f"there are {size - 8 - length:,} bytes; was it cut short?")
    return header


def _is_entry(entry: Any, size: int) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return False
    numbers = [entry["shape"], entry["data_offsets"]]
    if not all(isinstance(n, list) and all(type(i) is int and 0 <= i <= 2 ** 48 for i in n) for n in numbers):
        return False
    offsets = entry["data_offsets"]
    # Four bits are the smallest element.
    return len(offsets) == 2 and offsets[0] <= offsets[1] <= size and \
        math.prod(entry["shape"]) <= 2 * (offsets[1] - offsets[0])


def _words(error: Exception) -> str:
    return os.fspath(" ".join(str(error).split())[:200])
