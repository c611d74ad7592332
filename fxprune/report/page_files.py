"""Write several files into a folder: a crash while they are written leaves the old ones whole."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from fxprune.errors import InputError

Writer = Callable[[Path], object]


def write_together(folder: str | os.PathLike, files: Mapping[str, Writer]) -> None:
    """Have every writer write its file beside the folder's own, then move all of them in place.

    Args:
        folder: made where it does not exist; other files in it stay.
        files: file name -> what writes it, called with a path.

    Raises:
        InputError: the folder cannot be written to.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Inside the folder, so that moving is a rename on one file system.
        with TemporaryDirectory(dir=target, prefix=".writing-") as place:
            for name, write in files.items():
                part = Path(place) / name
                part.touch()
                mode = part.stat().st_mode
                write(part)
                # Some writers make private files; what lies here is for whoever may read the folder.
                part.chmod(mode)
            for name in files:
                os.replace(Path(place) / name, target / name)
    except OSError as error:
        raise InputError(f"{os.fspath(folder)!r} must be a folder that can be written to, but {error.strerror or error}"
                         f"; name another folder") from error
