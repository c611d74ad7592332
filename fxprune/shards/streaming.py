"""A plan carried out on a checkpoint, shard by shard: at most one shard of it and one tensor are in memory.

New shards are written to ``<dst>.partial``, each whole or not at all, and the folder gets its name when all of them and
the index are there. A run that was interrupted goes on with the first shard that is missing.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxprune.artefacts.weights import header
from fxprune.errors import ArtefactError, InputError, PlanError
from fxprune.ir.signature import dtype_name
from fxprune.planning import Plan
from fxprune.planning.digest import line_of
from fxprune.rewrite.slicing import sliced
from fxprune.shards.checkpoint import INDEX, Checkpoint, Stored, described, digest_of_lines
from fxprune.shards.few_blocks import BlockProof, verify_shards

PROOF = "verification.json"


@dataclass(frozen=True)
class Sliced:
    """What `apply_shards` did.

    Args:
        folder: where the new checkpoint lies, with ``plan.json`` beside it.
        files: its shards.
        read, written: bytes of tensors, of the whole checkpoint.
        resumed: shards that an earlier, interrupted run had written.
        digest: of the checkpoint that was read.
        proof: what instances with few blocks proved of the plan; None where no model was given.
    """

    folder: Path
    files: tuple[str, ...]
    read: int
    written: int
    resumed: int
    digest: str
    proof: BlockProof | None = None


def apply_shards(plan: Plan, src: str | os.PathLike, dst: str | os.PathLike, *, weights: str = "same",
                 model: nn.Module | None = None, example_inputs: Any = None) -> Sliced:
    """Slice a sharded safetensors checkpoint along a plan, shard by shard, into a new folder.

    What is written is, bit for bit, what `fxprune.apply` makes of the model in memory. Memory: one new shard and one
    tensor. The checkpoint's numbers are not run: what is checked is names, shapes, dtypes and its digest, and, with
    ``model``, the plan itself on instances with few blocks (`verify_shards`).

    Args:
        plan: of `score_shards`, or drawn in memory.
        src: ``model.safetensors.index.json``, its folder, or one file.
        dst: a folder that does not exist yet; ``<dst>.partial`` holds what is done so far.
        weights: ``"same"`` demands the weights that the plan was drawn from, ``"any"`` takes any.
        model: the plan's model, on the meta device: the plan is proven before anything is written, and what is proven
            stands in the result and in ``verification.json``.
        example_inputs: other inputs for that than those whose specs the plan holds.

    Raises:
        PlanError: the plan is of another model, or of other weights.
        VerificationError: an instance with few blocks differs.
        ArtefactError: the checkpoint is damaged, ``dst`` exists or is being written by another process, or the disk is
            full.
    """
    if not isinstance(plan, Plan) or weights not in ("same", "any"):
        raise InputError(f"plan must be a fxprune.Plan and weights 'same' or 'any', got {type(plan).__name__} and "
                         f"{weights!r}")
    stored, target = Checkpoint.open(src), Path(dst)
    _check(plan, stored)
    if target.exists():
        raise ArtefactError(f"{target.name!r} exists already; remove it, or write to another folder")
    partial = target.with_name(f"{target.name}.partial")
    _check_space(plan, stored, partial)
    proof = None if model is None else verify_shards(plan, model, example_inputs)
    with _alone(partial), _full_disk(partial):
        lines, resumed = {}, 0
        for file in stored.files:
            found = _done(partial / file, plan, stored.of(file))
            resumed += found is not None
            lines.update(_slice(plan, stored, file, partial) if found is None else found)
        _check_weights(plan, lines, weights)
        _finish(plan, stored, partial, proof)
        os.replace(partial, target)
    sizes = [(s, _shape(plan, name, s)) for name, s in stored.tensors.items()]
    return Sliced(target, tuple(stored.files), sum(s.stop - s.start for s, _ in sizes),
                  sum(_bytes(s, shape) for s, shape in sizes), resumed, digest_of_lines(lines), proof)


def _check(plan: Plan, stored: Checkpoint) -> None:
    """Every tensor is one of the plan's model, and every one that the plan cuts is there under one of its names."""
    if plan.branches:
        raise PlanError(f"plan.branches: shards are sliced tensor by tensor into a model of the same class, and "
                        f"{next(iter(plan.branches))!r} is to go whole; draw the plan without depth=")
    expected = {name: (shape, dtype) for name, shape, dtype in plan.signature.entries}
    for name, entry in stored.tensors.items():
        if expected.get(name) != (entry.shape, dtype_name(entry.dtype)):
            words = "no such tensor" if name not in expected else f"{list(expected[name][0])} {expected[name][1]}"
            raise PlanError(f"the plan must be of this checkpoint's model, but {name!r} is {described(entry)} in "
                            f"{entry.file} and {words} in the plan")
        if entry.shape and not entry.dtype.is_floating_point and not entry.dtype.is_complex:
            raise PlanError(f"{name!r} holds {dtype_name(entry.dtype)} numbers, which may be indices of channels and "
                            "would have to be renumbered; apply the plan in memory, with fxprune.apply")
    there = {(tuple(plan.keep[name].items()), expected[name]) for name in plan.keep.keys() & stored.tensors.keys()}
    for name, keep in plan.keep.items():
        # Of a tensor with several names a checkpoint has one.
        if name not in stored.tensors and (tuple(keep.items()), expected[name]) not in there:
            raise PlanError(f"the plan cuts {name!r}, which the checkpoint has under no name; is it of another model?")


def _check_weights(plan: Plan, lines: Mapping[str, str], weights: str) -> None:
    if weights == "any":
        return
    wanted, digest = plan.options.get("checkpoint"), digest_of_lines(lines)
    if wanted is None and lines.keys() >= {entry[0] for entry in plan.signature.entries}:
        text = "\n".join(f"{name} {lines[name]}" for name, _, _ in plan.signature.entries)
        wanted, digest = plan.digest, f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
    if wanted != digest:
        raise PlanError(f"the plan was drawn from other weights: it expects {str(wanted)[:19]}…, and the checkpoint "
                        f"has {digest[:19]}…; draw it with fxprune.score_shards(coupling, checkpoint), or pass "
                        'weights="any" if the channels still mean the same')


def _slice(plan: Plan, stored: Checkpoint, file: str, folder: Path) -> dict[str, str]:
    """Write one shard; what each of its tensors held."""
    from safetensors.torch import save_file

    lines, state = {}, {}
    for name in stored.of(file):
        tensor = stored.read(name)
        lines[name] = line_of(name, tensor)
        state[name] = sliced(tensor, plan.keep.get(name, {})).contiguous()
    waiting = folder / f"{file}.writing"
    save_file(state, str(waiting), metadata={"format": "pt", "fxprune": _key(plan), "read": json.dumps(lines)})
    with open(waiting, "rb") as written:
        os.fsync(written.fileno())
    os.replace(waiting, folder / file)
    return lines


def _done(path: Path, plan: Plan, tensors: Mapping[str, Stored]) -> dict[str, str] | None:
    """What the tensors of a shard held that an earlier run has written along this plan; None where none has."""
    if not path.exists():
        return None
    try:
        found = header(path)
        notes = found.get("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in found.items() if name != "__metadata__"}
        same = notes.get("fxprune") == _key(plan)
        lines = json.loads(notes["read"]) if same else None
    except (ArtefactError, ValueError, KeyError):
        return None
    return lines if same and shapes == {name: _shape(plan, name, s) for name, s in tensors.items()} else None


def _finish(plan: Plan, stored: Checkpoint, folder: Path, proof: BlockProof | None) -> None:
    total = sum(_bytes(entry, _shape(plan, name, entry)) for name, entry in stored.tensors.items())
    index = {"metadata": {"total_size": total}, "weight_map": {n: s.file for n, s in stored.tensors.items()}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    plan.save(folder / "plan.json")
    if proof is not None:
        (folder / PROOF).write_text(proof.to_json() + "\n")
    for path in folder.iterdir():
        # Shards of an earlier run along another plan, and the lock.
        if path.name not in {*stored.files, INDEX, "plan.json", *([PROOF] if proof else [])}:
            path.unlink()


def _key(plan: Plan) -> str:
    """What shards of one run have in common."""
    return hashlib.sha256(json.dumps(plan.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def _shape(plan: Plan, name: str, stored: Stored) -> tuple[int, ...]:
    keep = plan.keep.get(name, {})
    return tuple(len(keep[dim]) if dim in keep else n for dim, n in enumerate(stored.shape))


def _bytes(stored: Stored, shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel() * stored.dtype.itemsize


def _check_space(plan: Plan, stored: Checkpoint, folder: Path) -> None:
    left = [(n, s) for n, s in stored.tensors.items() if not (folder / s.file).exists()]
    needed = sum(_bytes(s, _shape(plan, n, s)) for n, s in left)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise ArtefactError(f"the new shards need {needed:,} bytes, and {free:,} are free; make room first")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer; the lock goes with its process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ArtefactError(f"{folder.name!r} is being written by another process; wait for it, or write to "
                                "another folder") from None
        yield


@contextmanager
def _full_disk(folder: Path, remove: Callable[[Path], None] = Path.unlink) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for waiting in folder.glob("*.writing"):
            remove(waiting)
        raise ArtefactError(f"a shard could not be written ({error.strerror or error}); what is done stays in "
                            f"{folder.name!r}, and the same call goes on from there") from error
