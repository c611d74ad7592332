"""What makes a channel worth keeping."""

from fxprune.planning.criteria.bn_scale import BNScale
from fxprune.planning.criteria.norms import L1, L2
from fxprune.planning.criteria.random import Random
from fxprune.planning.criteria.registry import CRITERIA, Criterion, described, resolve, score

__all__ = ["CRITERIA", "L1", "L2", "BNScale", "Criterion", "Random", "described", "resolve", "score"]
