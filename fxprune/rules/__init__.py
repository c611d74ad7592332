"""All rules, by family. Importing this package fills the registry."""

from fxprune.rules import (
    attention,
    backward,
    convolution,
    einsum,
    factories,
    gathers,
    linear,
    matrices,
    movement,
    normalisation,
    padding,
    pointwise,
    pooling,
    recurrent,
    reductions,
    repeats,
    sampling,
    subscripts,
    views,
    vision,
)

__all__ = ["attention", "backward", "convolution", "einsum", "factories", "gathers", "linear", "matrices",
           "movement", "normalisation", "padding", "pointwise", "pooling", "recurrent", "reductions", "repeats",
           "sampling", "subscripts", "views", "vision"]
