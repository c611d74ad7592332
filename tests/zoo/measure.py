"""One row of the table: compress a model, run the result, say what it took."""

import copy
import math
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_iter

import fxprune
from fxprune import api, passes
from fxprune.coupling.analysis import Analysis
from fxprune.rewrite.folding import Folded

# Where packages lie on the machine that measures is nobody's business.
_SITE = re.compile(r"/\S*site-packages/")
# The passes, by the function that runs them and where it is called.
PASSES = {(passes, "capture"): "capture", (passes, "refine"): "coupling", (api, "timed_plan"): "plan",
          (api, "carry_out"): "rewrite", (api, "check"): "verify"}
BOUNDARIES = ("model input", "model output")
# What is said where an operator takes certain widths only.
CERTAIN_WIDTHS = ("where it takes certain widths only", "multiple of 16 bytes")
# By place, or by name.
Inputs = tuple[Any, ...] | dict[str, Any]


class Unequal:
    """Keeps another share of each group."""

    def __call__(self, group: Any, tensors: Any) -> np.ndarray:
        return np.random.default_rng(list(group.name.encode())).random(group.size) + 0.01


@contextmanager
def timed() -> Iterator[Counter]:
    """Seconds of processor time by pass: other processes on the machine do not count."""
    seconds: Counter = Counter()

    def clock(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[label] += time.process_time() - start

        return run

    with ExitStack() as stack:
        for (module, name), label in PASSES.items():
            stack.enter_context(mock.patch.object(module, name, clock(label, getattr(module, name))))
        yield seconds


def measure(model: nn.Module, inputs: Inputs, verify: bool, run: bool = True) -> dict[str, Any]:
    """Everything that the table says of one model."""
    with timed() as seconds:
        small = fxprune.compress(model, inputs, channels=0.5, verify=False)
    done = fxprune.record(small)
    row = described(done)
    if verify:
        analysis = passes.analysis_of(model, inputs)  # once more, and not on the clock
        with timed() as proof:
            row |= proven(model, small, done.plan, analysis)
        seconds += proof
    if run:  # last: training moves the statistics
        row["untrained"] = _SITE.sub("", exercise(model, small, inputs))
    row["seconds"] = {name: round(spent, 3) for name, spent in seconds.items()}
    row["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return row | (in_own_class(model, inputs) if done.mode == "graph" else {})


def in_own_class(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """The parameters that the module form keeps at the same request; why there is none, if there is none."""
    try:
        small = fxprune.compress(model, inputs, channels=0.5, form="module", verify=False)
    except fxprune.FxpruneError as error:
        return {"unformed": _SITE.sub("", str(error))}
    return {"formed": fxprune.record(small).after.params}


def described(done: Any) -> dict[str, Any]:
    groups = list(done.coupling.groups.values())
    total = sum(g.size for g in groups)
    frozen = Counter()
    for g in groups:
        if g.frozen:
            frozen[g.frozen.why] += g.size
    inner = sorted(frozen.items(), key=lambda item: (item[0].startswith(BOUNDARIES), -item[1]))
    return {
        "mode": done.mode, "why": _SITE.sub("", done.coupling.why), "groups": len(groups), "channels": total,
        "frozen": round(sum(frozen.values()) / max(total, 1), 4), "reasons": inner[:4],
        "params": [done.before.params, done.after.params], "macs": [done.before.macs, done.after.macs],
        "unknown": dict(done.coupling.unknown),
    }


def exercise(model: nn.Module, small: nn.Module, inputs: Inputs) -> str:
    """Forward in eval mode, forward and backward in train mode, and eval again; why not in train mode, if not."""
    places, names = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    why = ""
    for training in (False, True, False):
        if training and places and isinstance(places[0], list):
            why = "a detector, which needs targets"
            continue
        change = _pair if training else lambda x: x
        call = [change(x) for x in places], {name: change(x) for name, x in names.items()}
        try:
            out = small.train(training)(*call[0], **call[1])
        except Exception as error:
            # The result may be held to one batch size, and the original's own Python may refuse to train.
            held = isinstance(error, AssertionError) and str(error).startswith("fxprune:")
            if not training or not held and str(error) != _raised(copy.deepcopy(model).train(), *call):
                raise
            why = str(error)
            continue
        if training:
            sum(t.float().square().mean() for t in tensors(out) if t.requires_grad).backward()
    return why


def _raised(model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> str | None:
    try:
        model(*args, **kwargs)
    except Exception as error:
        return str(error)
    return None


def _pair(x: Any) -> Any:
    """Batch normalisation over single values needs two samples."""
    return x.repeat(2, *[1] * (x.dim() - 1)) if isinstance(x, torch.Tensor) and len(x) == 1 else x


def tensors(out: Any) -> list[torch.Tensor]:
    items = vars(out).values() if hasattr(out, "__dataclass_fields__") else tree_iter(out)
    return [t for t in tree_iter(list(items)) if isinstance(t, torch.Tensor) and t.is_floating_point()]


def proven(model: nn.Module, small: nn.Module, drawn: fxprune.Plan, analysis: Analysis) -> dict[str, Any]:
    """Verification at half of each group, and again at random unequal widths."""
    first = api.check(model, small, drawn, analysis)
    second = _at_random(model, analysis, 1)
    if second is None:
        second = _at_random(model, analysis, 8)
    return {"error": max(first.max_error, second.max_error), "nodes": first.nodes, "dtype": first.dtype,
            "runs": first.runs, "free": [sum(d.free for d in first.dimensions), len(first.dimensions)],
            "notes": [_SITE.sub("", note) for note in (*first.notes, *second.notes)]}


def _at_random(model: nn.Module, analysis: Analysis, block: int) -> Any:
    """The proof at random widths, in blocks; None where an operator takes certain widths only."""
    coupling, rng = analysis.coupling, np.random.default_rng(0)
    widths = {name: min(math.ceil(rng.uniform(0.2, 1) * group.size / block) * block, group.size)
              for name, group in coupling.prunable.items()}
    plan = fxprune.Plan.from_widths(coupling, model, widths, criterion=Unequal())
    try:
        return api.check(model, api.carry_out(Folded(model), analysis, plan), plan, analysis)
    except fxprune.VerificationError as error:
        if block > 1 or not any(text in str(error) for text in CERTAIN_WIDTHS):
            raise
        return None
