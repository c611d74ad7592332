"""Save a compressed model: a folder with everything that people read, ship and load."""

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from fxprune.artefacts.exported import example_of, exported
from fxprune.artefacts.manifest import FILES, NAME, write_manifest
from fxprune.artefacts.source import check_source, source_of
from fxprune.artefacts.weights import write_weights
from fxprune.capture.capturing import GRAPH
from fxprune.capture.randomness import untouched_rng
from fxprune.errors import FxpruneError, InputError
from fxprune.ir.staging import staged
from fxprune.report.compression import compression_table
from fxprune.report.quoting import markdown
from fxprune.results import Record, record

ABOUT = {
    "plan.json": "what was kept, to review, edit and apply again",
    "weights.safetensors": "parameters, buffers and constants",
    "model.py": "standalone source: `from model import load; net = load()`",
    "model.pt2": "torch.export, in inference mode: `torch.export.load(\"model.pt2\").module()`",
    "report.html": "the network drawn, its coupling groups before and after",
}


@dataclass(frozen=True)
class Saved:
    """What `save` wrote.

    Args:
        folder: where.
        files: names of the files that were written.
        missing: name -> why, of those that could not be.
    """

    folder: Path
    files: tuple[str, ...]
    missing: Mapping[str, str]

    def __repr__(self) -> str:
        left = f"; not written: {', '.join(self.missing)}" if self.missing else ""
        return f"Saved({os.fspath(self.folder)!r}: {', '.join(self.files)}{left})"


def save(small: nn.Module, folder: str | os.PathLike[str], *, title: str = "") -> Saved:
    """Write a compressed model's artefact: plan, weights, source, exported program and reports.

    The folder is replaced in one step: a crash leaves the old one or none, and the next call clears up after it. A file
    that this model does not allow (source of a model with autograd functions of its own, any program in module mode) is
    left out, with the reason in ``report.md``, in the returned `Saved` and in a warning.

    Args:
        small: what `compress` or `apply` returned; it may have been trained since.
        folder: a new or empty folder, or one that `save` wrote.
        title: heading of the reports; the model's name if left out.

    Raises:
        InputError: not a compressed model, weights with NaN, or a folder that cannot be written, holds other files or
            is being written by somebody else.

    >>> import fxprune, tempfile
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> small = fxprune.compress(net, torch.randn(1, 3, 8, 8), channels=0.5)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save(small, f"{place}/pruned").files
    ('plan.json', 'weights.safetensors', 'model.py', 'model.pt2', 'report.html', 'report.md', 'manifest.json')
    """
    done = record(small)
    overall = done.overall
    title = title or f"{_name(small)}, pruned"
    target = Path(os.path.abspath(folder))
    check_folder(folder)
    missing: dict[str, str] = {}
    about = dict(ABOUT)
    try:
        with staged(target) as part:
            (overall.plan if overall and overall.plan else done.plan).save(part / "plan.json")
            folded = overall.folded if overall else bool(done.folds)
            write_weights(small, part / "weights.safetensors", {"folded": str(folded).lower(),
                                                                    "form": done.mode})
            _programs(small, done, part, title, missing, about)
            _attempt("report.html", missing, lambda: done.to_html(part / "report.html", title))
            written = tuple(name for name in FILES if (part / name).exists())
            _report(done, part / "report.md", title, [(name, about[name]) for name in written], missing)
            write_manifest(part)
            _open_up(part)
    except OSError as error:
        raise InputError(f"{os.fspath(folder)!r} must be a folder that can be written to, but {error.strerror or error}"
                         "; name another folder") from error
    for name, why in missing.items():
        warnings.warn(f"fxprune.save left out {name}: {why}", stacklevel=2)
    return Saved(target, (*written, "report.md", NAME), missing)


def _name(small: nn.Module) -> str:
    return type(small).__name__


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Whether `save` can write there: to be asked before long work.

    Raises:
        InputError: it holds other files, is none, or cannot be made.
    """
    target = Path(os.path.abspath(folder))
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError(f"an artefact is a folder, but {os.fspath(folder)!r} is something else; name a new folder")
    other = sorted({path.name for path in target.iterdir()} - {*FILES, NAME, "__pycache__"}) if target.exists() else []
    if other:
        raise InputError(f"an artefact's folder is replaced as a whole, but {os.fspath(folder)!r} holds {other[0]!r} "
                         "besides; name a new folder, or an empty one")
    above = next(place for place in target.parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{os.fspath(folder)!r} must be a folder that can be written to, but nothing can be made in "
                         f"{os.fspath(above)!r}; name another folder")


def _programs(small: nn.Module, done: Record, part: Path, title: str, missing: dict[str, str],
              about: dict[str, str]) -> None:
    """``model.py`` and ``model.pt2``, each held against the model before it is written."""
    if done.mode != GRAPH or not isinstance(small, GraphModule):
        why = "module mode keeps the model's own class, and there is no graph to write (fxprune.load with model= loads)"
        missing.update({"model.py": why, "model.pt2": why})
        return
    plain = _plain(small)

    def write_source() -> None:
        text = source_of(plain, title)
        check_source(text, copy.deepcopy(plain), example_of(plain, done.inputs))
        (part / "model.py").write_text(text, encoding="utf-8")

    def write_program() -> None:
        raw, batches = exported(plain.eval(), done.inputs)
        about["model.pt2"] += f", {batches}"
        (part / "model.pt2").write_bytes(raw)

    with untouched_rng():
        _attempt("model.py", missing, write_source)
        _attempt("model.pt2", missing, write_program)


def _plain(small: GraphModule) -> GraphModule:
    """A copy on the CPU, laid out as a file holds it."""
    plain = copy.deepcopy(small).cpu()
    with torch.no_grad():
        for tensor in (*plain.parameters(), *plain.buffers()):
            tensor.data = tensor.data.contiguous()
    return plain


def _attempt(name: str, missing: dict[str, str], write: Callable[[], None]) -> None:
    try:
        write()
    except FxpruneError as error:
        missing[name] = " ".join(str(error).split())


def _report(done: Record, path: Path, title: str, written: list[tuple[str, str]], missing: Mapping[str, str]
            ) -> None:
    files = [f"- `{name}`: {words}" for name, words in written] + [
        f"- no `{name}`: {markdown(why)}" for name, why in missing.items()]
    parts = [f"# {markdown(title)}", compression_table(done, "md", layers=True), "## Files", "\n".join(files),
             "## The coupling groups of the original", (done.overall or done).coupling.report("md")]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _open_up(part: Path) -> None:
    """Some writers make private files; what lies here is for whoever may read the folder."""
    mode = part.stat().st_mode & 0o666
    for path in part.iterdir():
        path.chmod(mode)
