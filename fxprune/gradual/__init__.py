"""A target that is reached in several steps, with training in between."""

from fxprune.gradual.step_shares import schedule

__all__ = ["schedule"]
