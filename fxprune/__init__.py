"""fxprune: a graph-level pruning compiler over ``torch.fx``.

A model goes in, a smaller model that computes a defined function comes out, and the compiler proves its own result.
"""

from fxprune.artefacts import load, save
from fxprune.coupling.op import Policy
from fxprune.coupling.record import Coupling
from fxprune.draw import plan
from fxprune.errors import (
    ArtefactError,
    BudgetError,
    CaptureError,
    FxpruneError,
    InputError,
    MissingExtraError,
    PlanError,
    UnsupportedError,
    VerificationError,
)
from fxprune.groups import CouplingGroup
from fxprune.measure import Comparison, Latency, compare, measure
from fxprune.nested import nested
from fxprune.order import order
from fxprune.penalties import DWGL, Constant, Ramp, Votes, WarmUp
from fxprune.pipeline import analyze, apply, compress, verify
from fxprune.planning import Plan
from fxprune.record import Record, record
from fxprune.registry import register_literals, register_rule
from fxprune.verify import Verification

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
    "MissingExtraError",
    "Plan",
    "PlanError",
    "Policy",
    "Ramp",
    "Record",
    "UnsupportedError",
    "Verification",
    "VerificationError",
    "Votes",
    "WarmUp",
    "analyze",
    "apply",
    "compare",
    "compress",
    "load",
    "measure",
    "nested",
    "order",
    "plan",
    "record",
    "register_literals",
    "register_rule",
    "save",
    "verify",
]
