"""Penalties that make channels removable while training."""

from fxprune.training.dwgl import DWGL
from fxprune.training.schedules import Constant, Progress, Ramp, Schedule, WarmUp
from fxprune.training.votes import Ballots, Votes

__all__ = ["DWGL", "Ballots", "Constant", "Progress", "Ramp", "Schedule", "Votes", "WarmUp"]
