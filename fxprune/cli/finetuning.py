"""``--finetune`` and ``--steps``: training by the user's own function, after each of several compressions."""

import argparse
from collections.abc import Callable
from typing import Any

from torch import nn

import fxprune
from fxprune.capture.model_walk import signature_of
from fxprune.errors import InputError
from fxprune.models.named import imported
from fxprune.results import attach, record

Fit = Callable[[nn.Module, nn.Module], object]


def trainer(name: str | None) -> Fit | None:
    """The function that ``--finetune`` names, before anything is done; None where nothing is named.

    Raises:
        InputError: no such function.
    """
    if name is None:
        return None
    fit: Fit = imported(name, "--finetune")
    if not callable(fit):
        raise InputError(f"--finetune must name a function fit(small, original), and {name!r} is a "
                         f"{type(fit).__name__}")
    return fit


def budgets_of_steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each compression is asked besides the options: nothing, or its step of the schedule.

    Raises:
        InputError: ``--steps`` with another budget than MACs or parameters.
    """
    if options.steps is None:
        return [{}]
    kind = "params" if options.params is not None else "macs"
    other = next((name for name in ("channels", "threshold", "widths", "latency", "latency_ms")
                  if getattr(options, name) is not None), None)
    if other:
        raise InputError(f"--steps goes towards --macs or --params, and --{other.replace('_', '-')} is neither; "
                         "drop it")
    target = getattr(options, kind)
    return [{kind: kept, "of": "original"} for kept in fxprune.schedule(0.5 if target is None else target,
                                                                       options.steps)]


def finetuned(small: nn.Module, original: nn.Module, fit: Fit, name: str) -> nn.Module:
    """What the function makes of the result, with the result's record.

    Raises:
        InputError: it returned a module of another form, or something else.
    """
    made = fit(small, original)
    if made is None or made is small:
        return small
    if not isinstance(made, nn.Module):
        raise InputError(f"{name} must train the module in place, or return one, and returned a {type(made).__name__}")
    difference = signature_of(small).difference(signature_of(made))
    if difference:
        raise InputError(f"{name} must return a module of the same form, but {difference}")
    return attach(made, record(small))
