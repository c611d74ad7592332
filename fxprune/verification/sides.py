"""Run both sides of a verification, and compare them node by node."""

import copy
import functools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from fxprune.capture import multihead
from fxprune.capture.contexts import compiling, running, without_checkpoints, without_regions
from fxprune.capture.dispatch import is_wrapped, outside_modes
from fxprune.capture.follower import Astray
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.model_walk import named_tensors
from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.capture.structure import isolated_copy
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.view import View
from fxprune.errors import VerificationError
from fxprune.ir.comparison import moved
from fxprune.ir.example_inputs import Example
from fxprune.ir.tape import Ref
from fxprune.ir.trees import tensors_in
from fxprune.verification.arithmetic import Arithmetic, Run, with_rounding
from fxprune.verification.channel_order import Order
from fxprune.verification.kept_part import kept_part
from fxprune.verification.ledger import Ledger
from fxprune.verification.masked import Computing, Masked
from fxprune.verification.nodes import by_keyword, run_nodes
from fxprune.verification.prepare import written_into
from fxprune.verification.settings import check_fractions
from fxprune.verification.undecided import Stalled, Undecided

_UNCAPTURED = object()
_OUTPUT = ""  # in place of a node's name
_Path = tuple[Any, ...]
_Values = dict[str, dict[_Path, torch.Tensor]]
# How often rounding is tried, and how far a sum in another order may be beyond what that shows.
SAMPLES = 2
MARGIN = {torch.float64: 1000.0, torch.float32: 100.0}
HALVES = 4.0


@dataclass(frozen=True)
class Sides:
    """The masked original and the pruned module, with the same random weights.

    Args:
        arithmetic: how operators are computed.
        samples: how many runs show what rounding does, which no value is blamed for; none, as long as all agree.
        share: ``(k, n)``: of the nodes compare the k-th of n shares, since the values of all do not fit in memory.
    """

    full: nn.Module
    pruned: nn.Module
    analysis: Analysis
    ledger: Ledger
    order: Order
    arithmetic: Arithmetic
    samples: int = 0
    share: tuple[int, int] = (0, 1)

    def run(self, mode: str, example: Example, view: View) -> str:
        """One run of both, compared node by node; why not, where the original does not take these inputs."""
        batch = next((t.shape[0] for t in tree_iter(example) if isinstance(t, torch.Tensor) and t.dim()), 0)
        context = f"{mode} mode, batch {batch}"
        differentiates = self.analysis.captured.differentiates
        for module in (self.full, self.pruned):
            module.train(mode == "train")
            for _, tensor in () if differentiates else named_tensors(module):
                if isinstance(tensor, nn.Parameter):  # TorchScript records their gradients, inference mode or not
                    tensor.requires_grad_(False)
        with running(differentiates), multihead.written_out(), without_checkpoints(), fresh_caches(self.full), \
                without_regions(), compiling(bool(self.analysis.coupling.eager)):
            try:
                copies = [isolated_copy(self.full) for _ in range(self.samples)]
                expected, values = self._reference(example, view)
                rounding = self._rounding(copies, example, view, expected, values)
            except Astray as error:
                raised = self._raised(example)
                if raised:
                    return f"the original does not run in {context}: {raised}"
                if not isinstance(self.pruned, GraphModule) and view.traced.fixed:
                    # A graph asserts the sizes that it was captured at; the model's own class takes others, unproven.
                    return f"not compared in {context}: {error}"
                # Its Python went another way than when it was captured: then a guard of the result must speak.
                if self._result(example, {}, {}, context, view) is _UNCAPTURED:
                    return ""
                raise Undecided(f"{error} ({context})") from error
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raised = self._raised(example)
                if raised:
                    return f"the original does not run in {context}: {raised}"
                if isinstance(error, VerificationError):
                    raise
                raise Undecided(f"the original must run with its removed channels masked, as it does without "
                                f"({context}), and raised {what}") from error
            out = self._result(example, values, rounding, context, view)
        if out is not _UNCAPTURED:
            _compare_outputs(_kept(expected, view), out, self.ledger, context, rounding)
            if not self.share[0]:
                self.ledger.runs.append((mode, batch))
                self.ledger.shapes.append(tuple(tuple(t.shape) for t in tree_iter(example)
                                                if isinstance(t, torch.Tensor)))
        return ""

    def _held(self, node: str) -> bool:
        """Whether the node's values are compared in this run."""
        return zlib.crc32(node.encode()) % self.share[1] == self.share[0]

    def _reference(self, example: Example, view: View) -> tuple[Any, _Values]:
        """The original's output, and the kept part of every node's value."""
        values: _Values = {}

        def keep(node: str, path: _Path, value: torch.Tensor) -> None:
            values.setdefault(node, {})[path] = value.detach()

        return self._original(self.full, example, view, self.arithmetic.run, keep), values

    def _rounding(self, copies: list[nn.Module], example: Example, view: View, expected: Any, values: _Values
                  ) -> dict[tuple[str, _Path], float]:
        """By how much rounding may change each value: as far as it moved in runs with other rounding, and a margin."""
        found: dict[tuple[str, _Path], float] = {}
        margin = MARGIN.get(self.arithmetic.wide or self.ledger.dtype, HALVES)

        def measure(node: str, path: _Path, value: torch.Tensor) -> None:
            reference = values.get(node, {}).get(path)
            if reference is not None:
                found[node, path] = max(found.get((node, path), 0.0), margin * moved(reference, value.detach()))

        for number, full in enumerate(copies):
            out = self._original(full, example, view, with_rounding(self.arithmetic.run, number), measure)
            values[_OUTPUT] = {(k,): tensor for k, tensor in enumerate(tensors_in(expected))}
            for k, tensor in enumerate(tensors_in(out)):
                measure(_OUTPUT, (k,), tensor)
            del values[_OUTPUT]
        return found

    def _original(self, full: nn.Module, example: Example, view: View, run: Run,
                  seen: Callable[[str, _Path, torch.Tensor], None]) -> Any:
        """Run it; ``seen(node, path, kept part)`` is called for every value that this run compares."""
        strict, graph = self.analysis.coupling.mode == "graph", isinstance(self.pruned, GraphModule)
        layers = {} if graph else {call.node: (path, k, call.out) for path, calls in leaf_calls(view).items()
                                   for k, call in enumerate(calls) if call.out is not None}

        def done(node: str, tensors: dict[int, torch.Tensor]) -> None:
            if node in layers:
                layer, number, out = layers[node]
                called(layer, number, out, tensors[out.id])
            elif graph and self._held(node):
                for path, ref in view.refs(node).items():
                    if ref.id in tensors:
                        seen(node, path, self.order.part(tensors[ref.id], view, ref))

        def called(path: str, number: int, ref: Ref, value: torch.Tensor) -> None:
            if self._held(path):
                seen(path, (number,), self.order.part(value, view, ref))

        args, kwargs = _own(example)
        watched = nullcontext() if strict else self._modules(full, view, called)
        skipped = view.traced.skipped if self.arithmetic.skipping else ()
        with Masked(view, done, run, strict, skipped) as masked, watched:
            out = full(*args, **kwargs)
        self.ledger.astray = masked.astray
        return out

    def _raised(self, example: Example) -> str:
        """What the original, unwatched, raises on these inputs in this mode; nothing where it takes them."""
        args, kwargs = _own(example)
        try:
            with Computing(self.arithmetic.run):
                self.full(*args, **kwargs)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    @contextmanager
    def _modules(self, module: nn.Module, view: View, seen: Callable[[str, int, Ref, torch.Tensor], None]
                 ) -> Iterator[None]:
        """Of modules the outputs of leaf modules stand in for nodes: ``seen(path, number of the call, …)``."""
        counts: dict[str, int] = {}
        known = leaf_calls(view)

        def hook(path: str) -> Callable[..., None]:
            def after(module: nn.Module, args: Any, out: Any) -> None:
                k = counts[path] = counts.get(path, -1) + 1
                calls = known[path]
                ref = calls[min(k, len(calls) - 1)].out
                if isinstance(out, torch.Tensor) and ref is not None and not is_wrapped(out) \
                        and out.dim() == len(ref.shape):
                    with outside_modes():  # what is done with it is none of the run's operators
                        seen(path, k, ref, out)

            return after

        handles = [module.get_submodule(path).register_forward_hook(hook(path)) for path in known]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _result(self, example: Example, values: _Values, rounding: dict[tuple[str, _Path], float], context: str,
                view: View) -> Any:
        example = _own(example)
        if isinstance(self.pruned, GraphModule):
            check_fractions(view.traced.graph, self.pruned.graph)

        def one(node: str, path: _Path, value: Any) -> None:
            # Let go of as soon as it is compared: all values of a large net at once do not fit in memory.
            reference = values.get(node, {}).pop(path, None)
            if reference is not None:
                self.ledger.compare(node, reference, value, context, rounding.get((node, path), 0.0))

        def compare(node: str, value: Any) -> None:
            for path in list(values.get(node, {})):
                one(node, path, _at(value, path))

        try:
            with Computing(self.arithmetic.run):
                if not isinstance(self.pruned, GraphModule):
                    watched = self._modules(self.pruned, view, lambda path, k, ref, value: one(path, (k,), value))
                    with multihead.of_torch(), watched:
                        return self.pruned(*example[0], **example[1])
                pruned, again = self.pruned, _own(example)
                uncalled = id(view.traced) not in self.ledger.called
                restore = written_into(pruned, view.tape) if uncalled else None
                out = run_nodes(pruned, example, compare)
                if restore is not None:
                    # The nodes were interpreted; users call the graph's code, some of them by keyword.
                    args, kwargs = by_keyword(self.full.forward, again)
                    called = restore()(*args, **kwargs)
                    _compare_outputs(out, called, self.ledger, f"{context}, called", rounding)
                    self.ledger.called.add(id(view.traced))
                return out
        except VerificationError:
            raise
        except AssertionError as error:
            if str(error).startswith("fxprune: captured"):
                self.ledger.notes.append(f"{context}: {str(error).splitlines()[0]}")
                return _UNCAPTURED
            raise Stalled(f"the result must run where the original does ({context}): {error}") from error
        except Exception as error:
            if not self._captured_runs(example, view):
                self.ledger.notes.append(f"{context}: a size in the model's Python holds it to the captured batch size")
                return _UNCAPTURED
            raise Stalled(f"the result must run where the original does ({context}), and raised "
                              f"{type(error).__name__}: {error}") from error

    def _captured_runs(self, example: Example, view: View) -> bool:
        """Whether the captured graph, before any pruning, takes these inputs: what numpy or C code made of a size is a
        number in it. On the kind of tensors that it was captured on: others may stop it for reasons of their own."""
        if not isinstance(self.pruned, GraphModule):
            return True
        traced, captured = view.traced, self.analysis.captured
        known = {**traced.constants, **traced.added}
        targets = {node.target for node in traced.graph.nodes if node.op in ("call_module", "get_attr")}
        parts = {target: known[target] if target in known else _attribute(captured.root, target) for target in targets}
        own = copy.deepcopy if captured.real else functools.partial(tree_map_only, torch.Tensor, _on_meta)
        parts, example = own((parts, example))
        try:
            with Computing(self.arithmetic.run):  # its weights are the model's own, and the inputs may be wider
                run_nodes(GraphModule(parts, traced.graph), example, lambda name, value: None)
        except Exception:
            return False
        return True


@dataclass(frozen=True)
class LeafCall:
    """A call of a leaf module: the first tensor that it gives, and its node, where there is a graph."""

    out: Ref | None
    node: str = ""


def leaf_calls(view: View) -> dict[str, list[LeafCall]]:
    """The calls of every leaf module, by its path."""
    if view.tape.modules:
        return {path: [LeafCall(out) for _, out in calls] for path, calls in view.tape.modules.items()}
    called: dict[str, list[LeafCall]] = {}
    for node in view.traced.graph.nodes:
        if node.op == "call_module" and node.target not in view.traced.added:
            calls = called.setdefault(str(node.target), [])
            calls += [LeafCall(None)] * (node.meta["call"] - len(calls))  # whose results nobody reads
            calls.append(LeafCall(view.refs(node.name).get(()), node.name))
    return called


def _own(example: Example) -> Example:
    """A copy, since a model may write into its inputs."""
    return tree_map_only(torch.Tensor, torch.clone, example)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to("meta")


def _attribute(root: nn.Module, target: str) -> Any:
    owner, _, leaf = target.rpartition(".")
    return getattr(root.get_submodule(owner), leaf)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _kept(expected: Any, view: View) -> list[torch.Tensor]:
    """What is kept of the original's outputs, of which some may shrink."""
    outputs = list(tensors_in(expected))
    known = [view.dims.get(number) for number in view.tape.outputs]
    if len(known) != len(outputs):
        return outputs
    return [out if vectors is None else kept_part(out, [view.kept_of(vector) for vector in vectors])
            for out, vectors in zip(outputs, known, strict=True)]


def _compare_outputs(expected: Any, out: Any, ledger: Ledger, context: str, rounding: dict[tuple[str, _Path], float]
                     ) -> None:
    wanted, got = list(tensors_in(expected)), list(tensors_in(out))
    if len(wanted) != len(got):
        raise VerificationError(f"the result must return {len(wanted)} tensors, as the original does, got {len(got)} "
                                f"({context})")
    for index, (reference, tensor) in enumerate(zip(wanted, got, strict=True)):
        ledger.compare("output" if len(wanted) == 1 else f"output[{index}]", reference, tensor, context,
                       rounding.get((_OUTPUT, (index,)), 0.0))
