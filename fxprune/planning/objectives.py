"""The scalar whose gradients say what a channel is worth."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxprune.errors import InputError
from fxprune.ir.trees import tensors_in
from fxprune.planning.batches import Batch, Loss


def objective(model: nn.Module, batch: Batch, loss: Loss | None, generator: torch.Generator) -> tuple[Tensor, bool]:
    """The loss of one batch, and whether it is one (and not the last of these): the user's; else the ``.loss`` that the
    outputs carry; else the cross-entropy of logits [N, classes] and integer targets [N]; else, without labels, the
    outputs on random signs v.

    The last is Σ v·f with v = ±1: its squared derivative along any direction is, on average over v, the squared change
    of all outputs in that direction, sample by sample. What that ranks lowest changes the outputs least.

    Raises:
        InputError: a loss that is no finite scalar, or has no gradient.
    """
    if loss is not None:
        return _checked(loss(model, batch.raw), "loss(model, batch)"), True
    args, kwargs = batch.example
    outputs = model(*args, **kwargs)
    own = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
    if isinstance(own, Tensor):
        return _checked(own, "the outputs' .loss"), True
    tensors = [t for t in tensors_in(outputs) if t.is_floating_point() and t.requires_grad]
    if not tensors:
        raise InputError("the model's outputs must have gradients for this criterion, and none has; pass "
                         "loss=lambda model, batch: ..., or take a criterion that reads activations")
    if len(batch.targets) == 1 and _labels(batch.targets[0], tensors[0]):
        return _checked(F.cross_entropy(tensors[0], batch.targets[0]), "the cross-entropy of the targets"), True
    signs = [torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1 for t in tensors]
    return torch.stack([(t * sign).sum() for t, sign in zip(tensors, signs, strict=True)]).sum(), False


def _labels(targets: object, logits: Tensor) -> bool:
    return isinstance(targets, Tensor) and targets.dtype == torch.int64 and logits.dim() == 2 \
        and targets.shape == logits.shape[:1]


def _checked(value: object, what: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{what} must be a scalar tensor, got {got}; reduce it with .mean()")
    if not value.requires_grad:
        raise InputError(f"{what} must have a gradient, and has none; compute it from the model's outputs, without "
                         "torch.no_grad() or .item()")
    if not torch.isfinite(value).all():
        raise InputError(f"{what} must be finite, got {value.item():g}")
    return value.reshape(())
