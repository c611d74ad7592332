"""``model.pt2``: written without anything that would have to be trusted, and read member by member.

torch never sees the file that was given: its members are read with the standard library, checked, and packed anew in
memory. What two parsers of one zip file understand differently (duplicates, overlaps, other headers) is so gone.
"""

import io
import json
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveWriter

from fxprune.artefacts.program import checked_program
from fxprune.artefacts.untrusted import parsed, size_of
from fxprune.artefacts.weights import refuse_nan
from fxprune.errors import ArtefactError

MEMBERS = 1_000_000
# Bytes of the program; weights are bounded by the file.
PROGRAM = 512 * 2 ** 20

_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_PROGRAM = "models/model.json"
_FORMAT, _VERSION = "archive_format", "archive_version"
_NEEDED = {_FORMAT, _VERSION, _PROGRAM, _WEIGHTS, _CONSTANTS}
# Written by every archive, and not read here.
_IGNORED = {"data/sample_inputs/model.pt", "byteorder", ".data/version", ".data/serialization_id", ".format_version",
            ".storage_alignment"}
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,9}")
_DTYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2}


def packed(program: ExportedProgram) -> bytes:
    """The bytes of ``model.pt2``: without sample inputs, stack traces and paths of this machine.

    Raises:
        ArtefactError: the program needs what a loader would have to trust.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return checked(buffer)


def opened(path: Path) -> nn.Module:
    """The program of a file as a module, for inference.

    Raises:
        ArtefactError: the file is damaged, or holds what may not be trusted.
    """
    size_of(path)
    with open(path, "rb") as file:
        return unpacked(checked(file))


def unpacked(raw: bytes) -> nn.Module:
    """The module of checked bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(raw))
            refuse_nan({**program.state_dict, **program.constants}, ArtefactError)
            return program.module().requires_grad_(False)
    except ArtefactError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[-200:]
        raise ArtefactError(f"damaged file: model.pt2 does not load ({type(error).__name__}: {words}); save it again "
                            "with this torch") from error


def checked(file: Any) -> bytes:
    """The same archive with only those members that were read and found harmless.

    Raises:
        ArtefactError: it holds anything else.
    """
    members = _members(file)
    for name in sorted(_NEEDED):
        if name not in members:
            raise ArtefactError(f"damaged file: model.pt2 has no {name}")
    if members[_FORMAT] != b"pt2" or members[_VERSION] not in (b"0", b"1"):
        raise ArtefactError("damaged file: model.pt2 is no archive of torch.export")
    for config, folder, prefix in ((_WEIGHTS, "data/weights/", "weight_"), (_CONSTANTS, "data/constants/", "tensor_")):
        _check_payloads(members, config, folder, prefix)
    members[_PROGRAM] = json.dumps(checked_program(members[_PROGRAM]), allow_nan=False).encode()
    # Torch reads an empty record as: there are none.
    members["data/sample_inputs/model.pt"] = b""
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, content in members.items():
            writer.write_bytes(name, content)
    return buffer.getvalue()


def _members(file: Any) -> dict[str, bytes]:
    """Contents by name, without the archive's own folder."""
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_infos(infos, size)
            names = {info.filename.partition("/")[2]: info for info in infos}
            return {name: archive.read(info) for name, info in names.items() if name not in _IGNORED}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise ArtefactError(f"damaged file: model.pt2 is no whole archive ({str(error)[:200]}); was it cut short?"
                            ) from error


def _check_infos(infos: list[zipfile.ZipInfo], size: int) -> None:
    if not infos or len(infos) > MEMBERS:
        raise ArtefactError(f"damaged file: model.pt2 must have 1 to {MEMBERS:,} members, got {len(infos):,}")
    if len({info.filename for info in infos}) != len(infos):
        raise ArtefactError("model.pt2 is not trusted: it has two members of one name")
    if len({info.filename.partition("/")[0] for info in infos}) != 1:
        raise ArtefactError("model.pt2 is not trusted: its members must lie in one folder")
    for info in infos:
        name = info.filename.partition("/")[2]
        if name not in _IGNORED | _NEEDED and not _TENSOR.fullmatch(name):
            raise ArtefactError(f"model.pt2 is not trusted: it has a member {info.filename[:80]!r}, which a program "
                                "and its weights do not need")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise ArtefactError(f"model.pt2 is not trusted: {info.filename[:80]!r} is compressed or encrypted, which "
                                "torch.export does not do")
        if name.endswith(".json") and info.file_size > PROGRAM:
            raise ArtefactError(f"model.pt2 is not trusted: {name} is larger than {PROGRAM:,} bytes")
    if sum(info.file_size for info in infos) > size:
        raise ArtefactError("model.pt2 is not trusted: its members are larger than the file, so that they overlap")


def _check_payloads(members: dict[str, bytes], config: str, folder: str, prefix: str) -> None:
    """Every tensor lies whole in a record of this archive, unpickled."""
    document = parsed(members[config], config)
    entries = document.get("config") if isinstance(document, dict) and set(document) == {"config"} else None
    if not isinstance(entries, dict):
        raise ArtefactError(f"damaged file: {config} must list tensors")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            raise ArtefactError(f"model.pt2 is not trusted: {name[:80]!r} is pickled, and unpickling runs code")
        path = entry.get("path_name")
        if not isinstance(path, str) or not path.startswith(prefix) or folder + path not in members:
            raise ArtefactError(f"model.pt2 is not trusted: {name[:80]!r} must lie in {folder}{prefix}…, got "
                                f"{str(path)[:80]!r}")
        _check_meta(name, entry.get("tensor_meta"), len(members[folder + path]))


def _check_meta(name: str, meta: Any, size: int) -> None:
    kind = meta.get("dtype") if isinstance(meta, dict) else None
    if type(kind) is not int or kind not in _DTYPES or not isinstance(meta.get("device"), dict):
        raise ArtefactError(f"damaged file: model.pt2 does not describe {name[:80]!r} as a tensor of a known dtype")
    if meta["device"].get("type") != "cpu":
        raise ArtefactError(f"model.pt2 is not trusted: {name[:80]!r} must be on the CPU")
    numbers = [meta.get("sizes"), meta.get("strides"), [meta.get("storage_offset")]]
    if not all(isinstance(n, list) and all(map(_is_count, n)) for n in numbers):
        raise ArtefactError(f"damaged file: model.pt2: {name[:80]!r} must have whole numbers as its sizes")
    sizes, strides, (offset,) = ([entry["as_int"] for entry in n] for n in numbers)
    if len(sizes) != len(strides) or len(sizes) > 64:
        raise ArtefactError(f"damaged file: model.pt2: {name[:80]!r} must have as many strides as sizes")
    count = math.prod(sizes)
    reach = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) + 1 if count else 0
    if max(reach, count) * _DTYPES[kind] > size:
        raise ArtefactError(f"damaged file: model.pt2: {name[:80]!r} of sizes {sizes} does not fit into its "
                            f"{size:,} bytes")


def _is_count(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"as_int"} and type(entry["as_int"]) is int and \
        0 <= entry["as_int"] < 2 ** 48
