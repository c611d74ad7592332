"""The plan and its file format."""

from fxprune.planning.group_plan import GroupPlan
from fxprune.planning.pruning_plan import Plan

__all__ = ["GroupPlan", "Plan"]
