"""Load an artefact. Nothing that its files say is executed: programs and plans are data that is checked."""

import math
import os

from torch import nn

from fxprune.api import apply
from fxprune.artefacts.archive import opened
from fxprune.artefacts.untrusted import inside
from fxprune.artefacts.weights import read_notes, read_weights
from fxprune.errors import ArtefactError
from fxprune.ir.example_inputs import specs
from fxprune.planning import Plan

# Of all example inputs together: four gigabytes of single precision.
ELEMENTS = 2 ** 30


def load(folder: str | os.PathLike, model: nn.Module | None = None) -> nn.Module:
    """A compressed model from the folder that `save` wrote. The files are not trusted.

    Args:
        folder: the artefact.
        model: an instance of the original class. Its plan is carried out on it and the weights are read, which gives
            the compressed model with its record, to train on. Where None, ``model.pt2`` is loaded, for inference.

    Raises:
        ArtefactError: a file is missing, damaged, of another model, or holds what could run code.
        PlanError: the plan is damaged, or does not belong to the model.

    >>> import fxprune, tempfile, torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> small, x = fxprune.compress(net, torch.randn(1, 3, 8, 8), channels=0.5), torch.randn(5, 3, 8, 8)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     saved = fxprune.save(small, f"{place}/pruned")
    ...     again, trainable = load(saved.folder), load(saved.folder, model=net)
    >>> torch.equal(again(x), small(x)), torch.equal(trainable(x), small(x))
    (True, True)
    """
    if model is None:
        return opened(inside(folder, "model.pt2"))
    if not isinstance(model, nn.Module):
        raise ArtefactError(f"model must be an instance of the original class, got {type(model).__name__}; write "
                            "fxprune.load(folder, model=Net())")
    weights = inside(folder, "weights.safetensors")
    notes = read_notes(weights)
    plan = plan_of(folder)
    small = apply(model, plan, weights="any", fold_constants=notes.get("folded") == "true")
    read_weights(small, weights)
    return small


def plan_of(folder: str | os.PathLike) -> Plan:
    """An artefact's plan, whose example inputs fit into memory: they are made to analyse the model.

    Raises:
        ArtefactError, PlanError: the file is missing, damaged, or asks for too much.
    """
    plan = Plan.load(inside(folder, "plan.json"))
    elements = sum(math.prod(spec.shape) for spec in specs(plan.inputs))
    if elements > ELEMENTS:
        raise ArtefactError(f"the plan's example inputs must have at most {ELEMENTS:,} elements, got {elements:,}; is "
                            "plan.json the one that was saved?")
    return plan
