"""All rules, by family. Importing this package fills the registry."""

from fxprune.rules import (
    attention,
    convolution,
    einsum,
    factories,
    gathers,
    linear,
    literals,
    matrices,
    movement,
    normalisation,
    pointwise,
    pooling,
    recurrent,
    reductions,
    sampling,
    views,
    vision,
)

__all__ = ["attention", "convolution", "einsum", "factories", "gathers", "linear", "literals", "matrices", "movement",
           "normalisation", "pointwise", "pooling", "recurrent", "reductions", "sampling", "views", "vision"]
