"""What makes a channel worth keeping."""

from fxprune.criteria.bn_scale import BNScale
from fxprune.criteria.norms import L1, L2
from fxprune.criteria.random import Random
from fxprune.criteria.registry import CRITERIA, Criterion, described, resolve, score

__all__ = ["CRITERIA", "L1", "L2", "BNScale", "Criterion", "Random", "described", "resolve", "score"]
