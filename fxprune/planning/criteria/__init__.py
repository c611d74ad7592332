"""What makes a channel worth keeping."""

from fxprune.planning.criteria.activity import Activation, APoZ, Entropy, Fluctuation, Wanda
from fxprune.planning.criteria.bn_scale import BNScale
from fxprune.planning.criteria.damage import Hessian, Taylor
from fxprune.planning.criteria.expected import Expected
from fxprune.planning.criteria.filters import FPGM, LAMP, Similarity
from fxprune.planning.criteria.norms import L1, L2
from fxprune.planning.criteria.random import Random
from fxprune.planning.criteria.reconstruction import OBS, Lasso
from fxprune.planning.criteria.registry import CRITERIA, Criterion, described, group_scores, name_of, needs, resolve

__all__ = ["CRITERIA", "FPGM", "L1", "L2", "LAMP", "OBS", "APoZ", "Activation", "BNScale", "Criterion", "Entropy",
           "Expected", "Fluctuation", "Hessian", "Lasso", "Random", "Similarity", "Taylor", "Wanda", "described",
           "group_scores", "name_of", "needs", "resolve"]
