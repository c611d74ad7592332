"""Load what `save` wrote: plan and weights, which are data, or the program, which is code."""

import os
import warnings
from typing import Any

import torch
from torch import nn

from fxprune import api
from fxprune.artefacts.manifest import one_file, whole
from fxprune.artefacts.weights import read_notes, read_weights
from fxprune.capture.capturing import GRAPH, MODULE
from fxprune.errors import ArtefactError
from fxprune.planning import Plan


def load(folder: str | os.PathLike[str], model: nn.Module | None = None, example_inputs: Any = None, *,
         trust: bool = False, verify: bool = True) -> nn.Module:
    """A compressed model from the folder that `save` wrote.

    Args:
        folder: the artefact.
        model: an instance of the original class. The folder's plan is carried out on it and the weights are read, which
            gives the compressed model with its record, to train on. Both are data, and checked as such: nothing that
            the folder holds is run.
        example_inputs: with ``model``, inputs that it takes, where random ones of the sizes that the plan holds are
            none (a text without the token that stands for an image).
        trust: load ``model.pt2`` instead, for inference and without the original class. A program is code: only
            from somebody who may run code on this machine.
        verify: with ``model``, prove the plan on it as `compress` does, before the weights are read.

    Raises:
        ArtefactError: neither ``model`` nor ``trust``; a file is missing, damaged, or not the one that was saved.
        PlanError: the plan is damaged, or does not belong to the model.
        VerificationError: the result does not compute the masked original.

    >>> import fxprune, tempfile
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> small, x = fxprune.compress(net, torch.randn(1, 3, 8, 8), channels=0.5), torch.randn(5, 3, 8, 8)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     saved = fxprune.save(small, f"{place}/pruned")
    ...     trainable, program = load(saved.folder, model=net), load(saved.folder, trust=True)
    >>> torch.equal(trainable(x), small(x)), torch.allclose(program(x), small(x))
    (True, True)
    """
    if model is None:
        return program_of(folder, trust)
    if not isinstance(model, nn.Module):
        raise ArtefactError(f"model must be an instance of the original class, got {type(model).__name__}; write "
                            "fxprune.load(folder, model=Net())")
    place = whole(folder)
    plan, weights = Plan.load(place / "plan.json"), place / "weights.safetensors"
    notes = read_notes(weights)
    form, folded = MODULE if notes.get("form") == MODULE else GRAPH, notes.get("folded") == "true"
    small = api.apply(model, plan, example_inputs, weights="any", fold_constants=folded, form=form, verify=verify)
    read_weights(small, weights)
    return small


def plan_of(folder: str | os.PathLike[str]) -> Plan:
    """An artefact's plan.

    Raises:
        ArtefactError, PlanError: the file is missing, damaged, or not the one that was saved.
    """
    return Plan.load(one_file(folder, "plan.json"))


def program_of(folder: str | os.PathLike[str], trust: bool) -> nn.Module:
    """An artefact's ``model.pt2`` as a module, for inference.

    Args:
        folder: the artefact.
        trust: that whoever wrote it may run code here.

    Raises:
        ArtefactError: not trusted, missing, damaged, or not the file that was saved.
    """
    if not trust:
        place = os.fspath(folder)
        raise ArtefactError("model.pt2 is a program, and loading a program can run any code that its author put there; "
                            f"write fxprune.load({place!r}, model=Net()) with an instance of the original class, or "
                            f"fxprune.load({place!r}, trust=True) if you trust whoever wrote the folder")
    path = one_file(folder, "model.pt2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path).module().requires_grad_(False)
    except Exception as error:
        words = " ".join(str(error).split())[-200:]
        raise ArtefactError(f"damaged file: model.pt2 does not load ({type(error).__name__}: {words}); save it again "
                            "with this torch") from error
