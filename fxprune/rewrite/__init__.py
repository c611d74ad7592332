"""Plan to new module; imported with fxprune, since it provides ``Plan.apply_to_optimizer``."""

from fxprune.rewrite.optimizer import sliced_optimizer

__all__ = ["sliced_optimizer"]
