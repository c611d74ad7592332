"""Translation validation: the emitted module against the masked original, from the plan alone.

Both sides get the same random weights. In the original, what the plan removes is zero, and operators that mix channels
compute over the kept ones; the emitted module must agree node by node, at the kept positions, in eval and in train
mode, at the given and at a second batch size. Nothing here knows how the module was emitted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_iter

from fxprune.capture import attention
from fxprune.capture import inputs as example_inputs
from fxprune.capture.capture import untouched_rng
from fxprune.capture.inputs import Example
from fxprune.coupling.follow import Astray
from fxprune.coupling.record import Coupling
from fxprune.coupling.view import View
from fxprune.errors import VerificationError
from fxprune.planning import Plan
from fxprune.verify.masked import Deterministic, Masked
from fxprune.verify.nodes import run_nodes
from fxprune.verify.parts import kept_part
from fxprune.verify.prepare import check_weights, pair
from fxprune.verify.record import Verification

# Beyond this many parameters the comparison is made in float32.
DOUBLE_LIMIT = 50_000_000
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
SEED = 20190
LOWEST = 1e30
_UNCAPTURED = object()
_Values = dict[str, dict[tuple[Any, ...], torch.Tensor]]


def check(model: nn.Module, small: nn.Module, plan: Plan, coupling: Coupling) -> Verification:
    """Hold ``small`` against the masked ``model``.

    Raises:
        VerificationError: they differ; the message names the first node that does.
    """
    check_weights(model, small, plan.keep)
    count = sum(p.numel() for p in model.parameters())
    native = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    native = native if native in TOLERANCE else torch.float32
    if count >= DOUBLE_LIMIT:
        return _attempt(model, small, plan, coupling, native, ())
    try:
        return _attempt(model, small, plan, coupling, torch.float64, ())
    except _DoesNotRun as error:
        if native is torch.float64:
            raise
        # A dtype in the model's own Python (``x.float()``) keeps it from running in double precision.
        return _attempt(model, small, plan, coupling, native, (f"not in float64: {error}",))


class _DoesNotRun(VerificationError):
    """One side raised."""


def _attempt(model: nn.Module, small: nn.Module, plan: Plan, coupling: Coupling, dtype: torch.dtype,
             notes: tuple[str, ...]) -> Verification:
    ledger = _Ledger(TOLERANCE[dtype], notes=list(notes))
    lost = coupling._lost({name: group.kept for name, group in plan.groups.items()})
    with untouched_rng():
        names = example_inputs.placeholders(model, example_inputs.realise(plan.inputs, "meta"))
        for number, (mode, second) in enumerate(_runs(coupling)):
            traced = coupling._captured.modes[mode]
            index = next(i for i, t in enumerate(coupling._captured.traced) if t is traced)
            # New copies each time: what a model caches on itself in one run would change the next.
            sides = _Sides(*pair(model, small, plan.keep, dtype, SEED), names, coupling, ledger)
            sides.run(mode, _example(model, plan, second, dtype, SEED + number), View(coupling, index, lost))
    if not ledger.runs:
        raise _DoesNotRun(f"nothing could be compared: {'; '.join(ledger.notes)}")
    if "train" not in coupling._captured.modes:
        ledger.notes.append(f"not captured in train mode: {coupling._captured.why}")
    return Verification(ledger.error, ledger.count, ledger.worst, ledger.tolerance,
                        str(dtype).removeprefix("torch."), tuple(ledger.runs), tuple(ledger.notes))


def _runs(coupling: Coupling) -> list[tuple[str, bool]]:
    """Mode, and whether at the second batch size: both modes and both sizes, and all of them where graphs differ."""
    if len(coupling._captured.traced) == 1 and "train" in coupling._captured.modes:
        return [("eval", False), ("train", True)]
    return [(mode, second) for mode in coupling._captured.modes for second in (False, True)]


def _example(model: nn.Module, plan: Plan, second: bool, dtype: torch.dtype, seed: int) -> Example:
    change = example_inputs.second_batch(plan.inputs) if second else lambda spec: spec
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    return example_inputs.realise(plan.inputs, device, torch.Generator().manual_seed(seed), change, dtype)


@dataclass
class _Ledger:
    """What was compared so far."""

    tolerance: float
    error: float = 0.0
    count: int = 0
    worst: str = ""
    runs: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, where: str, reference: torch.Tensor, got: torch.Tensor, context: str) -> None:
        if reference.shape != got.shape:
            raise VerificationError.at(where, f"node {where!r} must have shape {list(reference.shape)} after pruning, "
                                       f"got {list(got.shape)} ({context})")
        with _disable_current_modes():
            error = _difference(reference, got)
        self.count += 1
        if error >= self.error or not self.worst:
            self.error, self.worst = error, where
        if not error <= self.tolerance:
            raise VerificationError.at(where, f"node {where!r} must equal the masked original to {self.tolerance:g}, "
                                       f"and differs by {error:.3g} ({context}); the result is wrong and was not "
                                       "returned")


def _difference(reference: torch.Tensor, got: torch.Tensor) -> float:
    """The largest difference, relative to the largest magnitude; where both are the same non-number, none."""
    if not reference.numel():
        return 0.0
    got = got.conj_physical() if got.is_conj() else got
    if not reference.is_floating_point() and not reference.is_complex():
        return float((reference != got).any())
    if not reference.is_complex():
        # What a mask fills in is as low as its dtype goes: lower than anything else, and equal.
        reference, got = reference.clamp(-LOWEST, LOWEST), got.clamp(-LOWEST, LOWEST)
    same = (reference == got) | (reference.isnan() & got.isnan())
    if bool(same.all()):
        return 0.0
    finite = reference.isfinite()
    scale = float(reference[finite].abs().max()) if bool(finite.any()) else 1.0
    difference = torch.where(same, torch.zeros_like(reference, dtype=reference.abs().dtype), (reference - got).abs())
    error = float(difference.max()) / max(scale, 1e-30)
    return float("inf") if error != error else error


@dataclass(frozen=True)
class _Sides:
    """The masked original and the pruned module, with the same random weights."""

    full: nn.Module
    pruned: nn.Module
    names: list[str]
    coupling: Coupling
    ledger: _Ledger

    def run(self, mode: str, example: Example, view: View) -> None:
        """One run of both, compared node by node."""
        batch = next((t.shape[0] for t in tree_iter(example) if isinstance(t, torch.Tensor) and t.dim()), 0)
        context = f"{mode} mode, batch {batch}"
        self.full.train(mode == "train"), self.pruned.train(mode == "train")
        with torch.inference_mode(), attention.written_out():
            try:
                expected, values = self._reference(example, view)
            except VerificationError:
                raise
            except Astray as error:
                raise VerificationError(str(error)) from error
            except Exception as error:
                self.ledger.notes.append(f"the original does not run in {context}: {type(error).__name__}: {error}")
                return
            out = self._result(example, values, context, view)
        if out is not _UNCAPTURED:
            _compare_outputs(expected, out, self.ledger, context)
            self.ledger.runs.append((mode, batch))

    def _reference(self, example: Example, view: View) -> tuple[Any, _Values]:
        """The original's output, and the kept part of every node's value."""
        values: _Values = {}

        def done(node: str, tensors: dict[int, torch.Tensor]) -> None:
            values[node] = {path: kept_part(tensors[ref.id], view.masks(ref)).clone()
                            for path, ref in view.refs(node).items() if ref.id in tensors}

        watched = self._modules(self.full, view, lambda path, k, masks, value: values.setdefault(path, {}).update(
            {(k,): kept_part(value, masks).clone()}))
        with Masked(view, done, strict=self.coupling.mode == "graph"), watched:
            return self.full(*example[0], **example[1]), values

    @contextmanager
    def _modules(self, module: nn.Module, view: View, seen: Callable[[str, int, list[np.ndarray], torch.Tensor], None]
                 ) -> Iterator[None]:
        """In module mode the outputs of leaf modules stand in for nodes: ``seen(path, number of the call, …)``."""
        counts: dict[str, int] = {}

        def hook(path: str) -> Callable[..., None]:
            def after(module: nn.Module, args: Any, out: Any) -> None:
                k = counts[path] = counts.get(path, -1) + 1
                calls = view.tape.modules[path]
                ref = calls[min(k, len(calls) - 1)][1]
                if isinstance(out, torch.Tensor) and ref is not None and out.dim() == len(ref.shape):
                    seen(path, k, view.masks(ref), out)

            return after

        handles = [module.get_submodule(path).register_forward_hook(hook(path)) for path in view.tape.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _one(self, path: str, reference: torch.Tensor | None, value: torch.Tensor, context: str) -> None:
        if reference is not None:
            self.ledger.compare(path, reference, value, context)

    def _result(self, example: Example, values: _Values, context: str, view: View) -> Any:
        def compare(node: str, value: Any) -> None:
            for path, reference in values.get(node, {}).items():
                self.ledger.compare(node, reference, _at(value, path), context)

        try:
            with Deterministic():
                if self.coupling.mode != "graph":
                    with self._modules(self.pruned, view, lambda path, k, masks, value: self._one(
                            path, values.get(path, {}).get((k,)), value, context)):
                        return self.pruned(*example[0], **example[1])
                return run_nodes(self.pruned, example, self.names, compare)
        except VerificationError:
            raise
        except AssertionError as error:
            if str(error).startswith("fxprune: captured"):
                self.ledger.notes.append(f"{context}: {error}")
                return _UNCAPTURED
            raise _DoesNotRun(f"the result must run where the original does ({context}): {error}") from error
        except Exception as error:
            raise _DoesNotRun(f"the result must run where the original does ({context}), and raised "
                              f"{type(error).__name__}: {error}") from error


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _compare_outputs(expected: Any, out: Any, ledger: _Ledger, context: str) -> None:
    wanted = [t for t in tree_flatten(expected)[0] if isinstance(t, torch.Tensor)]
    got = [t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor)]
    if len(wanted) != len(got):
        raise VerificationError(f"the result must return {len(wanted)} tensors, as the original does, got {len(got)} "
                                f"({context})")
    for index, (reference, tensor) in enumerate(zip(wanted, got, strict=True)):
        ledger.compare("output" if len(wanted) == 1 else f"output[{index}]", reference, tensor, context)
