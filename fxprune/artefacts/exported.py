"""``torch.export`` of a compressed model: in inference mode, with a dynamic batch where the model allows one."""

import copy
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from fxprune.artefacts.outputs import drop_named_tuples, drop_records, plain
from fxprune.artefacts.source import run
from fxprune.capture.contexts import is_about_gradients
from fxprune.capture.pytrees import TreeSpec, tree_iter, tree_map, tree_map_only, tree_structure, tree_unflatten
from fxprune.errors import FxpruneError, UnsupportedError
from fxprune.ir.call_arguments import arguments
from fxprune.ir.comparison import difference
from fxprune.ir.example_inputs import Example, Inputs, realise, second_batch
from fxprune.rewrite.exportable import exportable

# What tracing notes at a node of the source that it ran through.
MACHINE = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node")
# How far apart one kernel's results may be from another's, relative to the largest output.
TOLERANCE = {torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-4, torch.complex64: 1e-4,
             torch.float16: 2e-2, torch.bfloat16: 5e-2}


def exported(small: GraphModule, inputs: Inputs) -> tuple[bytes, str]:
    """The bytes of ``model.pt2``, and in words which batch sizes it takes.

    Args:
        small: on the CPU, in inference mode.
        inputs: the example inputs' description.

    Raises:
        UnsupportedError: torch cannot export it, or the program computes something else.
    """
    reasons = []
    for example, dynamic, words in _attempts(small, inputs):
        try:
            raw = _saved(_export(small, example, dynamic))
            _check(small, _read_back(raw), [example, *_others(small, inputs, words)])
            return raw, words
        except FxpruneError as error:
            reasons.append(str(error))
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    raise UnsupportedError(f"torch.export does not take this model ({reasons[-1]})")


def _saved(program: ExportedProgram) -> bytes:
    """Without sample inputs, stack traces and paths of this machine: a program runs without them."""
    try:
        program.example_inputs = None
    except ValueError:  # torch 2.6 wants some, of the same form
        program.example_inputs = tree_map_only(torch.Tensor, torch.zeros_like, program.example_inputs)
    for entry in program.module_call_graph:
        if entry.signature is not None:
            entry.signature.in_spec, entry.signature.out_spec = map(_plain_spec, (entry.signature.in_spec,
                                                                                  entry.signature.out_spec))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for key in MACHINE:
                node.meta.pop(key, None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _plain_spec(spec: TreeSpec) -> TreeSpec:
    """A graph's own lists and dictionaries cannot be changed; a program hands out plain ones."""
    return tree_structure(plain(tree_unflatten([0] * spec.num_leaves, spec)))


def _read_back(raw: bytes) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(raw)).module()
    except Exception as error:
        raise UnsupportedError("torch cannot read back the program that it wrote, as of a model that returns a string"
                               ) from error


def example_of(small: GraphModule, inputs: Inputs, larger: bool = False) -> Example:
    """Random inputs of that description, in the model's own floating dtype."""
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in small.parameters() if p.is_floating_point()), None)
    change = second_batch(inputs) if larger else lambda spec: spec
    return realise(inputs, "cpu", generator, change, dtype)


def _attempts(small: GraphModule, inputs: Inputs) -> Iterator[tuple[Example, Any, str]]:
    larger, given = example_of(small, inputs, larger=True), example_of(small, inputs)
    # A batch of one is never dynamic to torch, so that it is exported on the larger one.
    yield larger, _dynamic(small, larger), "any batch size"
    yield given, None, f"a batch of {_batch(given)} only"


def _others(small: GraphModule, inputs: Inputs, words: str) -> list[Example]:
    return [example_of(small, inputs)] if words == "any batch size" else []


def _batch(example: Example) -> int:
    return next((t.shape[0] for t in tree_iter(example) if isinstance(t, torch.Tensor) and t.dim()), 0)


def _dynamic(small: GraphModule, example: Example) -> dict[str, Any]:
    """By argument: dimension 0 of every tensor that has the batch there."""
    batch = _batch(example)
    shared = Dim("batch", min=1)

    def spec(value: Any) -> Any:
        return {0: shared} if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == batch else None

    return {argument.name: tree_map(spec, argument.value) for argument in arguments(small, example) if argument.given}


def _export(small: GraphModule, example: Example, dynamic: Any) -> ExportedProgram:
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        module, (args, kwargs) = exportable(small, example)
        return torch.export.export(_plain(module), args, kwargs, dynamic_shapes=dynamic)


def _plain(copied: Any) -> GraphModule:
    """It does not switch gradients on and off, which only matters to training, and returns what a program can hold."""
    for node in reversed(list(filter(is_about_gradients, copied.graph.nodes))):
        copied.graph.erase_node(node)
    drop_records(copied.graph)
    drop_named_tuples(copied.graph)
    copied.recompile()
    return copied


def _check(small: GraphModule, program: Any, examples: list[Example]) -> None:
    for example in examples:
        # On copies, since a model may count its calls in a buffer.
        ours, theirs = run(copy.deepcopy(small), example), run(copy.deepcopy(program), example)
        if isinstance(ours, str):
            raise UnsupportedError(f"the compressed model raises {ours} on inputs like those it was captured on")
        ours, theirs = plain(ours), plain(theirs)
        if tree_structure(ours) != tree_structure(theirs) or not all(map(close, tree_iter(ours), tree_iter(theirs))):
            raise UnsupportedError("the exported program computes something else than the compressed model")


def close(a: Any, b: Any) -> bool:
    """Whether two outputs agree to within what another kernel may change."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and a == b
    return a.shape == b.shape and a.dtype == b.dtype and difference(a, b) <= TOLERANCE.get(a.dtype, 5e-2)
