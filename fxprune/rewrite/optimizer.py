"""The optimizer of the original becomes one of the pruned model: its momentum and moments are sliced along the plan."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fxprune.capture.model_walk import named_tensors
from fxprune.errors import InputError, PlanError
from fxprune.ir.methods import provides
from fxprune.planning import Plan


@provides(Plan, "apply_to_optimizer")
def sliced_optimizer(plan: Plan, optimizer: torch.optim.Optimizer, model: nn.Module, small: nn.Module,
                     ) -> torch.optim.Optimizer:
    """A new optimizer of the same class over ``small``'s parameters, with the same groups and options.

    Every state tensor is sliced as its parameter was: those of the parameter's shape (``momentum_buffer``,
    ``exp_avg``, ``exp_avg_sq``, …), and those that have length 1 where others have the parameter's (Adafactor's rows
    and columns). Scalars (step counts) are copied. Parameters that the pruned model no longer has are left out; so are
    groups that become empty. The given optimizer is not changed.

    Args:
        plan: what ``small`` was made by.
        optimizer: over parameters of ``model``.
        model: the original.
        small: ``fxprune.apply(model, plan)``.

    Raises:
        InputError: the optimizer holds parameters of another model, or its state cannot be sliced (LBFGS).
        PlanError: ``small`` was not made by this plan.

    >>> import fxprune.planning.draw
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> plan = fxprune.planning.draw.plan(analyze(net, torch.zeros(1, 3)), net, macs=0.5)
    >>> small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> adam = torch.optim.Adam(net.parameters(), lr=0.01)
    >>> net(torch.ones(1, 3)).sum().backward()
    >>> adam.step()
    >>> sliced_optimizer(plan, adam, net, small).state[small[2].weight]["exp_avg"].shape
    torch.Size([2, 2])
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}; write "
                         "plan.apply_to_optimizer(optimizer, model, small)")
    names: dict[int, list[str]] = {}
    for name, tensor in named_tensors(model):
        names.setdefault(id(tensor), []).append(name)
    theirs = dict(named_tensors(small))
    partner = {id(p): found for group in optimizer.param_groups for p in group["params"]
               if (found := _partner(p, names, theirs)) is not None}
    groups = []
    for group in optimizer.param_groups:
        kept = [i for i, p in enumerate(group["params"]) if id(p) in partner]
        entry = {key: copy.copy(value) for key, value in group.items() if key not in ("params", "param_names")}
        entry["params"] = [theirs[partner[id(group["params"][i])]] for i in kept]
        if "param_names" in group:
            entry["param_names"] = [group["param_names"][i] for i in kept]
        if kept:
            groups.append(entry)
    if not groups:
        raise InputError("the optimizer must hold parameters that the pruned model still has, but it has none of them; "
                         "pass the model that was pruned and what fxprune.apply made of it")
    fresh = _fresh(optimizer, groups)
    for parameter, state in optimizer.state.items():
        if id(parameter) in partner:
            name = partner[id(parameter)]
            fresh.state[theirs[name]] = _state(state, parameter, theirs[name], plan.keep.get(name, {}), name)
    return fresh


def _partner(parameter: Tensor, names: dict[int, list[str]], theirs: dict[str, Tensor]) -> str | None:
    """The name under which the pruned model has this parameter, or None where it is gone (dead code)."""
    if id(parameter) not in names:
        raise InputError(f"the optimizer must hold parameters of the model that was pruned, but one of shape "
                         f"{list(parameter.shape)} is not among them; pass the optimizer that was made with "
                         "model.parameters()")
    return next((n for n in names[id(parameter)] if isinstance(theirs.get(n), nn.Parameter)), None)


def _fresh(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """One of the same class and options, without state."""
    known = inspect.signature(type(optimizer).__init__).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    options = {key: value for key, value in optimizer.defaults.items() if anything or key in known}
    try:
        fresh = type(optimizer)(groups, **options)
    except Exception as error:
        raise InputError(f"{type(optimizer).__name__} could not be made anew with its own options: "
                         f"{type(error).__name__}: {error}; build it over small.parameters() yourself") from error
    fresh.defaults = dict(optimizer.defaults)
    return fresh


def _state(state: dict[str, Any], parameter: Tensor, small: Tensor, keep: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in state.items():
        found[key] = _sliced(value, parameter, small, keep, f"state {key!r} of {name!r}")
    return found


def _sliced(value: Any, parameter: Tensor, small: Tensor, keep: Any, what: str) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if value.dim() == 0:
        return value.detach().clone()
    lengths = tuple(parameter.shape)
    if value.dim() != len(lengths) or any(n not in (1, m) for n, m in zip(value.shape, lengths, strict=True)):
        raise InputError(f"{what} must have the parameter's shape {list(parameter.shape)} to be sliced, got "
                         f"{list(value.shape)} (LBFGS keeps all parameters in one vector); start a new optimizer over "
                         "small.parameters()")
    result = value.detach().clone()
    for dim, indices in keep.items():
        if value.shape[dim] == parameter.shape[dim]:
            result = result.index_select(dim, torch.tensor(indices, device=value.device))
    expected = [m if n != 1 else n for n, m in zip(value.shape, small.shape, strict=True)]
    if value.shape == parameter.shape:
        expected = list(small.shape)
    if list(result.shape) != expected:
        raise PlanError(f"{what} becomes {list(result.shape)} under this plan, but the pruned parameter is "
                        f"{list(small.shape)}; pass the model that this plan made: small = fxprune.apply(model, plan)")
    return result
