"""A sharded safetensors checkpoint, read as the untrusted files that they are; tensors are read one at a time."""

import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fxprune.artefacts.weights import header
from fxprune.errors import ArtefactError
from fxprune.ir.signature import dtype_name
from fxprune.ir.strict_json import parsed

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# Bytes of an index.
LIMIT = 256 * 2 ** 20
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
          "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its file, shape, dtype and bytes (from the file's beginning)."""

    file: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, in files of one folder.

    Args:
        folder: where the files lie.
        tensors: name -> `Stored`, by file and place in it.
    """

    folder: Path
    tensors: Mapping[str, Stored]

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Checkpoint":
        """
        Args:
            path: an index, a folder with ``model.safetensors.index.json`` or ``model.safetensors`` in it, or one file.

        Raises:
            ArtefactError: a shard is missing, cut short or outside of the folder, or index and shards disagree.
        """
        path = Path(path)
        if path.is_dir():
            path = path / INDEX if (path / INDEX).exists() else path / SINGLE
        if not path.is_file():
            raise ArtefactError(f"a checkpoint must be a safetensors file, its index, or a folder with {INDEX} or "
                                f"{SINGLE}, and there is no file {path.name}; give the path of one")
        folder = path.parent
        listed = _listed(path) if path.suffix == ".json" else None
        files = sorted(set(listed.values())) if listed is not None else [path.name]
        found = {name: stored for file in files for name, stored in _tensors(folder / file)}
        if listed is not None:
            _check_listed(listed, found)
        return cls(folder, found)

    @property
    def files(self) -> list[str]:
        """The shards' names."""
        return list(dict.fromkeys(stored.file for stored in self.tensors.values()))

    def of(self, file: str) -> dict[str, Stored]:
        """The tensors of one shard."""
        return {name: stored for name, stored in self.tensors.items() if stored.file == file}

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in memory of its own."""
        stored = self.tensors[name]
        raw = bytearray(stored.stop - stored.start)
        with open(self.folder / stored.file, "rb") as file:
            file.seek(stored.start)
            if file.readinto(raw) != len(raw):
                raise ArtefactError(f"damaged file: {stored.file} was cut short while it was read")
        return _shaped(np.frombuffer(raw, np.uint8), stored)

    def mapped(self) -> dict[str, torch.Tensor]:
        """All tensors, as views of the files: pages come and go as they are read."""
        maps = {}
        for file in self.files:
            with open(self.folder / file, "rb") as opened:
                # Private, so that writing to a view could not reach the file.
                maps[file] = np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
        return {name: _shaped(maps[s.file][s.start:s.stop], s) for name, s in self.tensors.items()}


def digest_of_lines(lines: Mapping[str, str]) -> str:
    """One digest of what each tensor of a checkpoint holds, whatever files they lie in."""
    text = "\n".join(f"{name} {lines[name]}" for name in sorted(lines))
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def described(stored: Stored) -> str:
    """Shape and dtype, in the words of a message."""
    return f"{list(stored.shape)} {dtype_name(stored.dtype)}"


def _listed(path: Path) -> dict[str, str]:
    if path.stat().st_size > LIMIT:
        raise ArtefactError(f"{path.name} must be at most {LIMIT:,} bytes, got {path.stat().st_size:,}")
    try:
        document = parsed(path.read_bytes())
    except ValueError as error:
        raise ArtefactError(f"damaged file: {path.name} is not valid JSON ({error})") from None
    weights = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(file, str) for file in weights.values()):
        raise ArtefactError(f"{path.name} must have a weight_map of names and files; is it a safetensors index?")
    for file in sorted(set(weights.values())):
        if Path(file).name != file or file in (".", ".."):
            raise ArtefactError(f"{path.name} must name files in its own folder, got {file[:80]!r}")
        if not (path.parent / file).is_file():
            raise ArtefactError(f"the shard {file!r} that {path.name} names is missing; download it again")
    return weights


def _check_listed(listed: Mapping[str, str], found: Mapping[str, Stored]) -> None:
    for name, file in listed.items():
        if name not in found or found[name].file != file:
            raise ArtefactError(f"the index says that {name!r} is in {file!r}, and it is not; download both again")
    extra = sorted(found.keys() - listed.keys())
    if extra:
        raise ArtefactError(f"{found[extra[0]].file!r} holds {extra[0]!r}, which the index does not list "
                            f"({len(extra)} in all); download both again")


def _tensors(path: Path) -> Iterator[tuple[str, Stored]]:
    listed: dict[str, Any] = header(path)
    with open(path, "rb") as file:
        base = 8 + int.from_bytes(file.read(8), "little")
    entries = sorted(((name, entry) for name, entry in listed.items() if name != "__metadata__"),
                     key=lambda item: item[1]["data_offsets"])
    end = 0
    for name, entry in entries:
        dtype, (start, stop) = DTYPES.get(entry["dtype"]), entry["data_offsets"]
        if dtype is None:
            raise ArtefactError(f"{path.name}: {name!r} must be of a dtype that torch has, got {entry['dtype']!r:.40}")
        if stop - start != math.prod(entry["shape"]) * dtype.itemsize or start != end:
            raise ArtefactError(f"damaged file: {path.name}: {name!r} must be {entry['shape']} {dtype_name(dtype)}, "
                                f"behind the tensor before it, got the bytes {start} to {stop}")
        end = stop
        yield name, Stored(path.name, tuple(entry["shape"]), dtype, base + start, base + stop)
    if path.stat().st_size != base + end:
        raise ArtefactError(f"damaged file: {path.name} must have {base + end:,} bytes, got {path.stat().st_size:,}; "
                            "was it cut short?")


def _shaped(raw: np.ndarray, stored: Stored) -> torch.Tensor:
    if not len(raw):
        return torch.empty(stored.shape, dtype=stored.dtype)
    return torch.from_numpy(raw).view(stored.dtype).view(stored.shape)
