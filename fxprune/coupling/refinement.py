"""Freeze what a trial refuses, and try again, until a random plan can be carried out.

In graph mode literals in calls are refused; in module mode, where the model's own Python runs, whole operators are.
"""

from collections.abc import Iterator, Mapping

from torch import nn

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.capturing import GRAPH, Captured
from fxprune.coupling.couple import couple
from fxprune.coupling.coupling import Coupling
from fxprune.errors import CaptureError, VerificationError
from fxprune.ir.signature import aliases
from fxprune.ir.tape import Call
from fxprune.planning import Plan
from fxprune.rewrite.shrink import shrink
from fxprune.rewrite.trial import random_cut, refusals
from fxprune.rules.op import Policy
from fxprune.verification import check

# How many rounds of freezing an operator's channels and trying again.
TRIALS = 24

# A node by its name or a call by its number -> why whatever arrives there is frozen.
Refused = dict[str | int, str]


def settled(model: nn.Module, captured: Captured, policy: Policy) -> Coupling:
    """The coupling in which all that a random plan may not cut is frozen, with the reason.

    Raises:
        CaptureError: after many rounds there is still something that is refused.
    """
    frozen = _held(model, captured)
    for _ in range(TRIALS):
        coupling = couple(model, captured, policy, frozen)
        found = refusals(model, coupling) or _differences(model, coupling)
        if coupling.mode != GRAPH:
            found = _alike(model, coupling, found) if found.keys() - frozen.keys() else \
                _around(model, coupling, found, frozen)
        if not found.keys() - frozen.keys():
            return coupling
        frozen.update(found)
    raise CaptureError(f"the model must run with fewer channels, and still failed after {TRIALS} freezes (last: "
                       f"{found}); ignore the layers around that operator")


def _held(model: nn.Module, captured: Captured) -> Refused:
    """In module mode attention runs its own Python, which takes its scale from the width; and data may yet lead to a
    layer that no run has called, so that what the layers beside it read must stay."""
    if captured.mode == GRAPH:
        return {}
    why = "nn.MultiheadAttention in module mode derives its scale from its width"
    held: Refused = {path: why for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    for path in captured.unreached:
        owner = path.rpartition(".")[0]
        beside = [owner, *(f"{owner}.{name}".lstrip(".") for name, _ in model.get_submodule(owner).named_children())]
        held |= dict.fromkeys(beside, f"data may lead to {path!r}, which no run has called")
    return held


def _alike(model: nn.Module, coupling: Coupling, found: Refused) -> Refused:
    """The same operator in all modules of its class: a net of many blocks is not tried once for each of them."""
    calls = coupling._outcome.calls
    more: Refused = {}
    for key, why in found.items():
        more[key] = why
        if isinstance(key, str):
            continue
        place = _calls_of(calls, calls[key].node).index(key)
        for path in _twins(model, calls[key].node):
            there = _calls_of(calls, path)
            if place < len(there) and calls[there[place]].op == calls[key].op:
                more[there[place]] = why
    return more


def _around(model: nn.Module, coupling: Coupling, found: Refused, frozen: Mapping[str | int, str]) -> Refused:
    """An operator may be refused once more although what arrives at it is frozen: the size that it holds is another
    tensor's. Then whatever arrives in its module is, and, should that be so already, in the one around it."""
    calls = coupling._outcome.calls
    nodes = {call.node for call in calls}
    wider: Refused = {}
    for key, why in found.items():
        parts = (key if isinstance(key, str) else calls[key].node).split(".")
        for place in (".".join(parts[:depth]) for depth in range(len(parts), -1, -1)):
            wanted = {node for path in (place, *_twins(model, place)) for node in nodes if _inside(node, path)}
            if not wanted <= frozen.keys():
                break
        wider |= dict.fromkeys(sorted(wanted), why)
    return wider


def _inside(node: str, path: str) -> bool:
    return not path or node == path or node.startswith(f"{path}.")


def _calls_of(calls: list[Call], path: str) -> list[int]:
    return [number for number, call in enumerate(calls) if call.node == path]


def _twins(model: nn.Module, path: str) -> Iterator[str]:
    """Other modules of the same class; layers of torch.nn have nothing in common but that."""
    module = model.get_submodule(path)
    if path and not is_leaf(module):
        yield from (name for name, other in model.named_modules() if type(other) is type(module) and name != path)


def _differences(model: nn.Module, coupling: Coupling) -> Refused:
    """In module mode a size may steer values, too: the first module whose values a random plan changes."""
    if coupling.mode == GRAPH or not coupling.prunable:
        return {}
    trial = Plan.build(coupling.groups, random_cut(coupling), signature=coupling.signature, inputs=coupling.inputs,
                       digest="", aliases=aliases(model), mode=coupling.mode)
    try:
        check(model, shrink(model, coupling, trial), trial, coupling)
    except VerificationError as error:
        if not any(error.node in traced.tape.modules for traced in coupling._captured.traced):
            raise
        return {error.node: f"a size in the model's Python steers its values: {error}"}
    return {}
