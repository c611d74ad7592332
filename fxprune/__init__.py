"""fxprune: a graph-level pruning compiler over ``torch.fx``.

A model goes in, a smaller model that computes a defined function comes out, and the compiler proves its own result.
"""

from fxprune import interrupts as interrupts  # first: it makes Ctrl-C quiet while the rest is imported
from fxprune.api import analyze, apply, compress, verify
from fxprune.artefacts import load, save
from fxprune.coupling.coupling import Coupling
from fxprune.errors import (
    ArtefactError,
    BudgetError,
    CaptureError,
    FxpruneError,
    InputError,
    MeasurementError,
    MissingExtraError,
    PlanError,
    RuleError,
    UnsupportedError,
    VerificationError,
)
from fxprune.gradual import schedule
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.policy import Policy
from fxprune.latency.building import latency_table
from fxprune.latency.clock import Comparison, Latency, compare, measure
from fxprune.latency.lookup import LatencyTable
from fxprune.latency.target import Target
from fxprune.planning import Plan
from fxprune.planning.branch_scores import score_branches
from fxprune.planning.draw import plan
from fxprune.planning.family import nested
from fxprune.planning.scoring import score
from fxprune.planning.split_data import SplitData
from fxprune.results import Record, record
from fxprune.rewrite.merging import merge
from fxprune.rewrite.ordering import order
from fxprune.rewrite.recovery import Recovery
from fxprune.rules.registry import register_literals, register_rule
from fxprune.searching import search, sensitivity
from fxprune.shards import apply_shards, score_shards, verify_shards
from fxprune.training import DWGL, Constant, Ramp, Votes, WarmUp
from fxprune.verification import Verification

__all__ = [
    "DWGL",
    "ArtefactError",
    "BudgetError",
    "CaptureError",
    "Comparison",
    "Constant",
    "Coupling",
    "CouplingGroup",
    "FxpruneError",
    "InputError",
    "Latency",
    "LatencyTable",
    "MeasurementError",
    "MissingExtraError",
    "Plan",
    "PlanError",
    "Policy",
    "Ramp",
    "Record",
    "Recovery",
    "RuleError",
    "SplitData",
    "Target",
    "UnsupportedError",
    "Verification",
    "VerificationError",
    "Votes",
    "WarmUp",
    "analyze",
    "apply",
    "apply_shards",
    "compare",
    "compress",
    "latency_table",
    "load",
    "measure",
    "merge",
    "nested",
    "order",
    "plan",
    "record",
    "register_literals",
    "register_rule",
    "save",
    "schedule",
    "score",
    "score_branches",
    "score_shards",
    "search",
    "sensitivity",
    "verify",
    "verify_shards",
]
