"""The group norms' weighted sum with its closed-form gradient, as one node of the autograd graph."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fxprune.training.blocks import Layout


class GroupNorms(torch.autograd.Function):
    """Σ_b c_b ‖W_b‖₂, and ∂/∂W_b = c_b · W_b / ‖W_b‖₂; 0, a subgradient, where ‖W_b‖₂ = 0."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, coefficients: Tensor, *tensors: Tensor) -> Tensor:
        norms = layout.norms(tensors)
        ctx.layout = layout
        ctx.save_for_backward(coefficients, norms, *tensors)
        return coefficients @ norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, norms, *tensors = ctx.saved_tensors
        factor = torch.where(norms > 0, gradient * coefficients / norms, 0.0)
        return None, None, *ctx.layout.scaled(tensors, factor)
