"""Search over plans, by Optuna: every trial is a plan, what it is worth is the user's word."""

from fxprune.searching.found import Found
from fxprune.searching.one_at_a_time import Sensitivity, sensitivity
from fxprune.searching.optimisation import search
from fxprune.searching.simplification import netadapt

__all__ = ["Found", "Sensitivity", "netadapt", "search", "sensitivity"]
