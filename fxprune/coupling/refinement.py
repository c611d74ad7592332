"""Couple, try, freeze what the trial refuses, and again, until a random plan can be carried out.

In graph mode literals in calls are refused; in module mode, where the model's own Python runs, whole operators are. How
a plan is tried is the business of the passes below, which hand the trial in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.capturing import GRAPH, Captured
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.couple import couple
from fxprune.coupling.replay import Place
from fxprune.errors import CaptureError
from fxprune.ir.policy import Policy
from fxprune.ir.tape import Call

# How many rounds of freezing an operator's channels and trying again.
TRIALS = 24

# A node by its name or a call by its number -> why whatever arrives there is frozen; or a dimension of a tensor.
Refused = dict[Place, str]
Trial = Callable[[nn.Module, Analysis], Refused]


def refine(model: nn.Module, captured: Captured, policy: Policy, trials: Sequence[Trial],
           held: Mapping[Place, str] | None = None) -> Analysis:
    """The analysis in which all that a random plan may not cut is frozen, with the reason.

    Args:
        model: it is not changed.
        captured: of this model.
        policy: how splits into heads and groups are pruned.
        trials: each tries a random plan and says what it refuses; a later one is asked where those before are content.
        held: what is frozen or tied from the start, with the reason.

    Raises:
        CaptureError: after many rounds there is still something that is refused.
    """
    frozen = _held(model, captured) | dict(held or {})
    for _ in range(TRIALS):
        analysis = couple(model, captured, policy, frozen)
        found = next(filter(None, (trial(model, analysis) for trial in trials)), {})
        if captured.mode != GRAPH:
            calls = analysis.coupling.evidence.calls
            found = _in_twins(model, calls, found) if found.keys() - frozen.keys() else \
                _wider(model, calls, found, frozen)
        if not found.keys() - frozen.keys():
            return analysis
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


def _in_twins(model: nn.Module, calls: Sequence[Call], found: Refused) -> Refused:
    """The same operator in all modules of its class: a net of many blocks is not tried once for each of them."""
    more: Refused = {}
    for key, why in found.items():
        more[key] = why
        if not isinstance(key, int):
            continue
        place = _calls_of(calls, calls[key].node).index(key)
        for path in _twins(model, calls[key].node):
            there = _calls_of(calls, path)
            if place < len(there) and calls[there[place]].op == calls[key].op:
                more[there[place]] = why
    return more


def _wider(model: nn.Module, calls: Sequence[Call], found: Refused, frozen: Mapping[Place, str]) -> Refused:
    """An operator may be refused once more although what arrives at it is frozen: the size that it holds is another
    tensor's. Then whatever arrives in its module is, and, should that be so already, in the one around it."""
    nodes = {call.node for call in calls}
    wider: Refused = {}
    for key, why in found.items():
        parts = (calls[key].node if isinstance(key, int) else str(key)).split(".")
        for place in (".".join(parts[:depth]) for depth in range(len(parts), -1, -1)):
            wanted = {node for path in (place, *_twins(model, place)) for node in nodes if _inside(node, path)}
            if not wanted <= frozen.keys():
                break
        wider |= dict.fromkeys(sorted(wanted), why)
    return wider


def _inside(node: str, path: str) -> bool:
    return not path or node == path or node.startswith(f"{path}.")


def _calls_of(calls: Sequence[Call], path: str) -> list[int]:
    return [number for number, call in enumerate(calls) if call.node == path]


def _twins(model: nn.Module, path: str) -> Iterator[str]:
    """Other modules of the same class; layers of torch.nn have nothing in common but that."""
    module = model.get_submodule(path)
    if path and not is_leaf(module):
        yield from (name for name, other in model.named_modules() if type(other) is type(module) and name != path)
