"""A model on its target, ready to be timed: who runs it, and which layers it has there."""

import hashlib
from dataclasses import dataclass

from torch import nn

import fxprune.latency.runtimes  # noqa: F401  (fills the table of backends)
from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError
from fxprune.ir.example_inputs import specs
from fxprune.latency.backends import Backend, backend_for
from fxprune.latency.layers import Layers, layers_of
from fxprune.latency.samples import Timed
from fxprune.latency.target import Target, batched, inputs_for, placed
from fxprune.passes import analysis_of


@dataclass(frozen=True, eq=False)
class Stand:
    """A model on a target, ready to be timed beside others.

    Args:
        target: with nothing left open.
        backend: who runs it.
        model: one pass of it.
    """

    target: Target
    backend: Backend
    model: Timed


def stand_of(model: nn.Module, coupling: Coupling, target: Target) -> Stand:
    """The model on the target.

    Raises:
        InputError, MissingExtraError: the target is not there.
    """
    target = target.resolved(coupling.inputs)
    backend = backend_for(target)
    return Stand(target, backend, backend.prepare(placed(model, target), inputs_for(coupling.inputs, target)))


def layers_at(coupling: Coupling, model: nn.Module, target: Target) -> Layers:
    """The layers of the model at the target's batch size."""
    inputs = batched(coupling.inputs, target.batch)
    if inputs is coupling.inputs:
        return layers_of(coupling)
    other = analysis_of(model, inputs, coupling.policy).coupling
    if [(name, group.size) for name, group in other.groups.items()] != \
            [(name, group.size) for name, group in coupling.groups.items()]:
        raise InputError(f"the model must be coupled alike at batch {target.batch} and at the example inputs' batch, "
                         f"and is not; analyze it at batch {target.batch} to begin with")
    return layers_of(other)


def model_digest(coupling: Coupling, target: Target) -> str:
    """Of the model's structure and its inputs at the target's batch size."""
    facts = ([(name, shape) for name, shape, _ in coupling.signature.entries],
             [spec.shape for spec in specs(batched(coupling.inputs, target.batch))])
    return f"sha256:{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"
