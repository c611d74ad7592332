"""A digest of a model's weights: a plan is only right for the weights that it was drawn from."""

import hashlib
import zlib

import numpy as np
import torch

from fxprune.capture.model_walk import named_tensors
from fxprune.errors import InputError
from fxprune.ir.signature import dtype_name
from fxprune.planning.whole_weights import whole

# Bytes from which a tensor is large, the 64-bit words of a row, and the rows that a processor's cache holds.
LARGE, ROW, AT_ONCE = 1 << 18, 4096, 32


def digest_of(model: torch.nn.Module) -> str:
    """``"sha256:…"`` over every parameter and buffer: name, dtype, shape and a checksum of the raw bytes, in
    ``state_dict`` order. It guards against the wrong checkpoint, not against malice, and is read at memory speed.

    Bytes, not values, so that every dtype counts (bfloat16, float8) and -0.0 differs from 0.0. The device and the
    memory format do not count, nor whether ranks hold shards of them (all ranks must call).

    Raises:
        InputError: a tensor has no bytes to read (meta device, sparse).

    >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> digest_of(a) == digest_of(b), b.load_state_dict(a.state_dict()), digest_of(a) == digest_of(b)
    (False, <All keys matched successfully>, True)
    """
    lines = [f"{name} {line_of(name, whole(t))}" for name, t in named_tensors(model)]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode(errors='surrogatepass')).hexdigest()}"


def line_of(name: str, tensor: torch.Tensor) -> str:
    """What one tensor adds to a digest: dtype, shape, and a checksum of its bytes."""
    return f"{dtype_name(tensor.dtype)} {tuple(tensor.shape)} {_checksum(_raw(name, tensor))}"


def _checksum(raw: np.ndarray) -> str:
    """CRC-32; of a large tensor that of its row and column sums as 64-bit words, which takes half the time and sees a
    changed or a moved word alike."""
    words = raw.size // (8 * ROW) * ROW if raw.size >= LARGE else 0
    rest = raw[8 * words:]
    if not words:
        return f"{zlib.crc32(rest.data)}"
    table = raw[:8 * words].view(np.int64).reshape(-1, ROW)
    columns, rows = np.zeros(ROW, np.int64), np.empty(len(table), np.int64)
    for start in range(0, len(table), AT_ONCE):  # so that what is summed one way is still at hand for the other
        part = table[start:start + AT_ONCE]
        columns += part.sum(0)
        part.sum(1, out=rows[start:start + AT_ONCE])
    return " ".join(str(zlib.crc32(part.data)) for part in (columns, rows, rest))


def _raw(name: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.is_meta or tensor.layout is not torch.strided:
        kind = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
        raise InputError(f"weights must hold values to be planned on, but {name!r} is {kind}; materialise it first, "
                         "with model.to_empty(device='cpu') and model.load_state_dict(...)")
    plain = tensor.detach()
    if plain.dtype is torch.float32 and plain.is_cpu and plain.is_contiguous() and not plain.is_neg():
        return plain.numpy().reshape(-1).view(np.uint8)  # what nearly all are, at a third of the calls
    return plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
