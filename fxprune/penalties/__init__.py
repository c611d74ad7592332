"""Penalties that make channels removable while training."""

from fxprune.penalties.dwgl import DWGL
from fxprune.penalties.schedules import Constant, Progress, Ramp, Schedule, WarmUp
from fxprune.penalties.votes import Ballots, Votes

__all__ = ["DWGL", "Ballots", "Constant", "Progress", "Ramp", "Schedule", "Votes", "WarmUp"]
