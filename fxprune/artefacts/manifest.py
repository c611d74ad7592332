"""``manifest.json``: which files an artefact has, and the SHA-256 digest of each.

It says whether a folder is whole and all of one save: weights of another folder, a cut-off copy, an edited plan. It is
no signature: whoever can change a file can change its digest, and no file is run on the strength of it.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from fxprune.errors import ArtefactError
from fxprune.ir.files import read_limited
from fxprune.ir.strict_json import parsed
from fxprune.ir.versions import installed

NAME, FORMAT, VERSION = "manifest.json", "fxprune-folder", 1
FILES = ("plan.json", "weights.safetensors", "model.py", "model.pt2", "report.md", "report.html")
# Bytes of the manifest, of any other file, and read at a time.
SMALL, LIMIT, PIECE = 2 ** 16, 64 * 2 ** 30, 2 ** 20


def write_manifest(folder: Path) -> None:
    """List what lies in the folder.

    Args:
        folder: with all of its other files.
    """
    names = [name for name in FILES if (folder / name).exists()]
    document = {"format": FORMAT, "version": VERSION, "fxprune": installed("fxprune"), "torch": installed("torch"),
                "files": {name: f"sha256:{_digest(folder / name)}" for name in names}}
    (folder / NAME).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def whole(folder: str | os.PathLike[str]) -> Path:
    """An artefact's folder, in which exactly the files lie that were saved.

    What begins with a dot, as version control leaves it, and ``__pycache__`` do not count.

    Raises:
        ArtefactError: a file is missing, differs, or was not saved there.
    """
    place = _folder(folder)
    listed = _listed(place)
    for name in sorted(path.name for path in place.iterdir()):
        if name not in (*listed, NAME, "__pycache__") and not name.startswith("."):
            raise ArtefactError(f"the artefact {os.fspath(folder)!r} holds {name!r}, which is not in its {NAME}; take "
                                "it out, since fxprune.save wrote no such file")
    for name in listed:
        _same(place, name, listed[name])
    return place


def one_file(folder: str | os.PathLike[str], name: str) -> Path:
    """One file of an artefact, as it was saved.

    Raises:
        ArtefactError: it is missing or differs.
    """
    place = _folder(folder)
    listed = _listed(place)
    if name not in listed:
        raise ArtefactError(f"the artefact {os.fspath(folder)!r} has no {name}; its report.md says why")
    return _same(place, name, listed[name])


def _folder(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder)
    if not place.is_dir():
        raise ArtefactError(f"an artefact is a folder, but {os.fspath(folder)!r} is none; name the folder that "
                            "fxprune.save wrote")
    return place


def _listed(place: Path) -> dict[str, str]:
    """Name -> digest, as the manifest says."""
    raw = read_limited(_plain(place, NAME), SMALL)
    if raw is None:
        raise ArtefactError(f"{NAME} must not be larger than {SMALL:,} bytes")
    try:
        document = parsed(raw)
    except ValueError as error:
        raise ArtefactError(f"damaged file: {NAME} is not valid JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ArtefactError(f"{NAME} must be of the format {FORMAT!r}, version {VERSION}, the only one that this "
                            "fxprune reads; save the folder again")
    files: Any = document.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ArtefactError(f"damaged file: {NAME} must list the digest of every file")
    unknown = next((name for name in files if name not in FILES), None)
    if unknown is not None:
        raise ArtefactError(f"damaged file: {NAME} lists {unknown[:80]!r}, which fxprune.save does not write")
    return files


def _same(place: Path, name: str, digest: str) -> Path:
    path = _plain(place, name)
    if path.stat().st_size > LIMIT:
        raise ArtefactError(f"{name} must not be larger than {LIMIT:,} bytes, got {path.stat().st_size:,}")
    if f"sha256:{_digest(path)}" != digest:
        advice = ("; to apply an edited plan, copy it elsewhere and write fxprune.apply(model, fxprune.Plan.load(path))"
                  if name == "plan.json" else "; is it of another artefact, or was it cut short?")
        raise ArtefactError(f"{name} is not the file that was saved in {os.fspath(place)!r}: its digest is not the one "
                            f"in {NAME}{advice}")
    return path


def _plain(place: Path, name: str) -> Path:
    """A file that lies in that folder itself."""
    path = place / name
    if not os.path.lexists(path):
        raise ArtefactError(f"the artefact {os.fspath(place)!r} has no {name}, or is not a folder that fxprune.save "
                            "wrote; copy all of its files")
    if not path.is_file() or path.resolve().parent != place.resolve():
        raise ArtefactError(f"{name} must be a plain file in the artefact's own folder, and is not")
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
