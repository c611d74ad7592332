"""A digest of a model's weights: a plan is only right for the weights that it was drawn from."""

import hashlib
import zlib

import torch

from fxprune.errors import InputError
from fxprune.signature import dtype_name, named_tensors


def digest_of(model: torch.nn.Module) -> str:
    """``"sha256:…"`` over every parameter and buffer: name, dtype, shape and a checksum (CRC-32) of the raw bytes, in
    ``state_dict`` order. It guards against the wrong checkpoint, not against malice, and is read at memory speed.

    Bytes, not values, so that every dtype counts (bfloat16, float8) and -0.0 differs from 0.0. The device and the
    memory format do not count.

    Raises:
        InputError: a tensor has no bytes to read (meta device, sparse).

    >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> digest_of(a) == digest_of(b), b.load_state_dict(a.state_dict()), digest_of(a) == digest_of(b)
    (False, <All keys matched successfully>, True)
    """
    lines = [f"{name} {dtype_name(t.dtype)} {tuple(t.shape)} {zlib.crc32(_raw(name, t))}"
             for name, t in named_tensors(model)]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _raw(name: str, tensor: torch.Tensor) -> memoryview:
    if tensor.is_meta or tensor.layout is not torch.strided:
        kind = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
        raise InputError(f"weights must hold values to be planned on, but {name!r} is {kind}; materialise it first, "
                         "with model.to_empty(device='cpu') and model.load_state_dict(...)")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data
