"""The analysis behind the capture: replay, group, count."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import fxprune.rules  # noqa: F401  (fills the registry)
from fxprune.capture.capturing import MODULE, Captured
from fxprune.capture.holdings import own_parameters
from fxprune.capture.model_walk import aliases, named_modules, named_tensors, signature_of
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.coupling.gating import gating
from fxprune.coupling.grouping import costs, group_channels
from fxprune.coupling.replay import Place, Replay, replay
from fxprune.coupling.residual import residual_branches
from fxprune.errors import InputError, UnsupportedError
from fxprune.ir.evidence import Evidence, Slot
from fxprune.ir.frozen import Frozen
from fxprune.ir.policy import Policy
from fxprune.rules.bugs import Bug
from fxprune.rules.registry import couple_of


def refuse(model: Any) -> None:
    """Say no to what is no module, and to modules that hide their weights."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}; pass the module itself")
    for name, module in named_modules(model):
        kind = type(module).__module__
        where = f"module {name!r} is" if name else "the model is"
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedError(f"scripted modules hide their Python, and {where} a {type(module).__name__}; "
                                   "prune the original module and script the result")
        if "quantized" in kind or kind.startswith("torchao"):
            raise UnsupportedError(f"quantized modules cannot be pruned, and {where} a {kind}.{type(module).__name__}; "
                                   "prune the float model and quantize the result")
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in own_parameters(module).values()):
            raise InputError(f"lazy modules have no weights yet, and {where} a {type(module).__name__}; "
                             "run the model once before pruning it")


def couple(model: nn.Module, captured: Captured, policy: Policy, frozen: Mapping[Place, str]) -> Analysis:
    """Replay the captured tapes and draw up the groups."""
    tapes = tuple(traced.tape for traced in captured.traced)
    outcome = replay(tapes, policy, frozen)
    grouping = group_channels(outcome)
    gates = gating(tapes, grouping.groups)
    parameters = {name for name, tensor in named_tensors(model) if isinstance(tensor, nn.Parameter)}
    reached = {name for name, _ in outcome.slots}
    shared = {first: names for first, names in aliases(model).items() if len(names) > 1}
    evidence = Evidence(tapes, outcome.dims, outcome.slots, shared, tuple(outcome.notes.joined),
                        tuple(outcome.notes.fresh), frozenset(index for index, _ in outcome.notes.contractions),
                        outcome.closure.channel, grouping.group, grouping.ordinal)
    signature = signature_of(model)
    return Analysis(captured, Coupling(
        groups=Frozen({group.name: gates.marked(group) for group in grouping.groups}),
        costs=costs(outcome, grouping, parameters, _layers(outcome), len(captured.modes["eval"].tape.calls)),
        signature=signature,
        inputs=captured.inputs,
        policy=policy,
        mode=captured.mode,
        evidence=evidence,
        unused=tuple(name for name in sorted(parameters) if name not in reached),
        unknown=_unknown(outcome),
        bugs=tuple(dict.fromkeys(map(str, (*captured.bugs, *outcome.bugs,
                                           *(why for why in frozen.values() if isinstance(why, Bug)))))),
        why=captured.why if captured.mode == MODULE else "",
        eager=captured.eager,
        model=type(model).__name__,
        branches=Frozen(residual_branches(captured, evidence, grouping.groups, signature)),
    ))


def _layers(outcome: Replay) -> dict[str, Slot]:
    """Layer name -> the parameter dimension that is its width: every producer, under its module's name."""
    marked = {id(vector) for _, vector in outcome.notes.produced}
    layers: dict[str, Slot] = {}
    for (name, dim), vector in outcome.slots.items():
        if id(vector) in marked:
            owner, _, leaf = name.rpartition(".")
            layers.setdefault(owner if owner and leaf == "weight" else name, (name, dim))
    return layers


def _unknown(outcome: Replay) -> dict[str, str]:
    """Operators without a rule, and where they stand in the user's source."""
    return {call.op: call.source for call in reversed(outcome.calls) if couple_of(call.op) is None}
