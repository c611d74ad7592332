"""The plan and its file format."""

from fxprune.planning.parts import GroupPlan
from fxprune.planning.record import Plan

__all__ = ["GroupPlan", "Plan"]
