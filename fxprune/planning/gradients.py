"""Gradients of the loss, reduced at once to what a criterion reads: Σ w·∂L/∂w per channel, or the curvature."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.model_walk import named_tensors
from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.batches import Batch, Loss
from fxprune.planning.criteria.slices import slice_sums
from fxprune.planning.input_statistics import running
from fxprune.planning.objectives import objective


def products(model: nn.Module, groups: Mapping[str, CouplingGroup], batches: Iterable[Batch], loss: Loss | None,
             generator: torch.Generator) -> dict[str, np.ndarray]:
    """Per group: Σ w·∂L/∂w over a channel's slices, by batch and member: float64 [batches, members, size]."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in groups}
    parameters = _trainable(model)
    for number, batch in enumerate(batches):
        gradient = _gradient(model, parameters, batch, loss, generator, number)
        moved = {name: (parameters[name].detach() * gradient[name]) for name in gradient}
        for name, group in groups.items():
            found[name].append(np.stack([slice_sums(m, moved[m.name], group.size) if m.name in moved
                                         else np.zeros(group.size) for m in group.members]))
    return {name: np.stack(rows) for name, rows in found.items() if rows}


def curvature(model: nn.Module, batches: Iterable[Batch], loss: Loss | None, generator: torch.Generator
              ) -> tuple[dict[str, Tensor], int]:
    """The sum over batches of the diagonal of ∂²L/∂w², per parameter, and the number of batches.

    With a loss: Hutchinson's estimate, one random direction of signs v a batch, v ⊙ ∂(v·∂L/∂w)/∂w. Without one, the
    outputs stand on random signs, and the squared gradient is the diagonal of JᵀJ, the Hessian of ½‖Δoutputs‖².
    """
    parameters, count = _trainable(model), 0
    total: dict[str, Tensor] = {}
    for number, batch in enumerate(batches):
        found: dict[str, Tensor] = {}

        def run(batch: Batch = batch, found: dict[str, Tensor] = found) -> None:
            found.update(_diagonal(model, parameters, batch, loss, generator))

        running(run, number)
        total = {name: value.double() + total.get(name, 0.0) for name, value in found.items()}
        count += 1
    return total, count


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    found = {name: p for name, p in named_tensors(model) if isinstance(p, nn.Parameter) and p.is_floating_point()}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def _gradient(model: nn.Module, parameters: Mapping[str, nn.Parameter], batch: Batch, loss: Loss | None,
              generator: torch.Generator, number: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def run() -> None:
        value, _ = objective(model, batch, loss, generator)
        grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        found.update({name: grad for name, grad in zip(parameters, grads, strict=True) if grad is not None})

    running(run, number)
    broken = next((name for name, grad in found.items() if not torch.isfinite(grad).all()), None)
    if broken is not None:
        raise InputError(f"gradients must be finite, but that of {broken!r} is not on batch {number}; look for the "
                         "cause in the data or the loss")
    return found


def _diagonal(model: nn.Module, parameters: Mapping[str, nn.Parameter], batch: Batch, loss: Loss | None,
              generator: torch.Generator) -> dict[str, Tensor]:
    value, labelled = objective(model, batch, loss, generator)
    first = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, create_graph=labelled)
    grads = {name: grad for name, grad in zip(parameters, first, strict=True) if grad is not None}
    if not labelled:
        return {name: grad.square() for name, grad in grads.items()}
    signs = {name: torch.randint(0, 2, g.shape, generator=generator).to(g) * 2 - 1 for name, g in grads.items()}
    along = torch.stack([(g * signs[name]).sum() for name, g in grads.items()]).sum()
    names = list(grads)
    second = torch.autograd.grad(along, [parameters[name] for name in names], allow_unused=True)
    return {name: signs[name] * h for name, h in zip(names, second, strict=True) if h is not None}
