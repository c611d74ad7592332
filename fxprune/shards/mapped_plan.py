"""A plan drawn from weights that stay on disk."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from typing_extensions import Unpack

from fxprune.errors import ArtefactError, InputError
from fxprune.ir.signature import dtype_name
from fxprune.planning import Plan
from fxprune.planning.cut_options import CutOptions, with_cut_options
from fxprune.planning.digest import line_of
from fxprune.planning.draw import plan as draw
from fxprune.planning.selection import Wanted
from fxprune.shards.checkpoint import Checkpoint, described, digest_of_lines

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


@with_cut_options
def score_shards(coupling: "Coupling", checkpoint: str | os.PathLike, **cut: Unpack[CutOptions]) -> Plan:
    """Score a sharded safetensors checkpoint where it lies, and draw the plan.

    The files are mapped and read tensor by tensor; what is in memory at a time is one tensor and the scores.

    Args:
        coupling: `fxprune.analyze` of the model, which may have been made on the meta device.
        checkpoint: ``model.safetensors.index.json``, its folder, or one file.
        cut: all that `fxprune.plan` takes.

    Returns:
        The plan. ``options["checkpoint"]`` holds the checkpoint's digest, which `apply_shards` asks for.

    Raises:
        ArtefactError: the checkpoint is damaged, or of another model.
        FxpruneError: as `fxprune.plan`.

    >>> import tempfile, fxprune, safetensors.torch
    >>> with torch.device("meta"):
    ...     net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> coupling = fxprune.analyze(net, torch.zeros(1, 3, device="meta"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     state = {name: torch.randn(p.shape) for name, p in net.named_parameters()}
    ...     safetensors.torch.save_file(state, f"{folder}/model.safetensors")
    ...     score_shards(coupling, folder, channels=0.5)
    Plan(4 of 8 channels kept in 1 groups, 3 tensors cut)
    """
    if not all(hasattr(coupling, name) for name in ("groups", "signature", "evidence")):
        raise InputError(f"coupling must be what fxprune.analyze returns, got {type(coupling).__name__}; write "
                         "score_shards(fxprune.analyze(model), path)")
    stored = Checkpoint.open(checkpoint)
    mapped = stored.mapped()
    cut["groups"] = _sliceable(coupling, mapped, cut.get("groups", "auto"))
    drawn = draw(coupling, _model(coupling, stored, mapped), **cut)
    digest = digest_of_lines({name: line_of(name, tensor) for name, tensor in mapped.items()})
    return replace(drawn, options={**drawn.options, "checkpoint": digest})


def _sliceable(coupling: "Coupling", mapped: Mapping[str, torch.Tensor], groups: Wanted) -> Wanted:
    """Without the groups that reach into buffers that no checkpoint holds (a rotary embedding's table): with nothing to
    slice there, whoever loads the result would make them anew at their old lengths."""
    held = {*mapped, *coupling.costs.params_names}
    absent = {name: lost[0] for name, group in coupling.prunable.items()
              if (lost := [m.name for m in group.members if m.name not in held])}
    if not absent or groups != "auto":
        return groups
    name, buffer = next(iter(absent.items()))
    warnings.warn(f"{len(absent)} of {len(coupling.prunable)} groups stay whole, {name!r} among them: they reach into "
                  f"{buffer!r}, which the checkpoint does not hold and nobody could slice", stacklevel=4)
    return [name for name in coupling.prunable if name not in absent]


def _model(coupling: "Coupling", stored: Checkpoint, mapped: Mapping[str, torch.Tensor]) -> nn.Module:
    """Modules and names as the model has them, with the checkpoint's tensors as weights, and nothing to run."""
    root = nn.Module()
    used = set(coupling.costs.params_names)
    first = {name: key for key, names in coupling.evidence.shared.items() for name in names}
    parameters: dict[str, nn.Parameter] = {}
    entries = {name: (shape, dtype) for name, shape, dtype in coupling.signature.entries}
    for name, (shape, dtype) in entries.items():
        key = first.get(name, name)
        source = next((n for n in (name, *coupling.evidence.shared.get(key, ())) if n in mapped), None)
        if source is not None and (tuple(mapped[source].shape), dtype_name(mapped[source].dtype)) != (shape, dtype):
            raise ArtefactError(f"{name!r} must be {list(shape)} {dtype} as in the coupling, and the checkpoint has "
                                f"{described(stored.tensors[source])}; analyse a model of the checkpoint's dtype and "
                                "config")
        if source is None and (name in used or key in used):
            raise ArtefactError(f"the checkpoint lacks {name!r} ({list(shape)} {dtype}); is it of another model?")
        # A buffer that no checkpoint has is not scored: it counts by its shape alone.
        tensor = mapped[source] if source is not None else torch.zeros(shape, dtype=getattr(torch, dtype))
        owner, _, leaf = name.rpartition(".")
        _put(_module(root, owner), leaf, tensor, parameters, key)
    unknown = sorted(mapped.keys() - entries.keys())
    if unknown:
        raise ArtefactError(f"the checkpoint has {unknown[0]!r}, which the model has not ({len(unknown)} in all); is "
                            "it of another model, or are its names prefixed?")
    return root


def _put(module: nn.Module, leaf: str, tensor: torch.Tensor, parameters: dict[str, nn.Parameter], key: str) -> None:
    if key not in parameters:
        parameters[key] = nn.Parameter(tensor, requires_grad=False)
    module.register_parameter(leaf, parameters[key])


def _module(root: nn.Module, path: str) -> nn.Module:
    for part in filter(None, path.split(".")):
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root
