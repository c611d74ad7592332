"""Widths that a model tells others, and no call of ``forward`` reads.

``reset_classifier`` (timm) builds a layer anew from attributes: it is run on a copy whose integers remember their
address, so that the new layer's width says which they were. ``num_features``, ``head_hidden_size`` and
``feature_info`` (timm) and ``out_channels`` (torchvision's backbones, encoders of segmentation-models-pytorch) are
defined as lengths of what a method or a module gives; there the smaller copy is asked.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fxprune.capture.layer_classes import CONVOLUTION
from fxprune.capture.model_walk import named_modules
from fxprune.capture.own_errors import own_bugs
from fxprune.capture.provenance import mark
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.sizes import Attribute, Book
from fxprune.capture.structure import structural_copy
from fxprune.ir import example_inputs, trees
from fxprune.ir.example_inputs import Inputs
from fxprune.rewrite.attribute_values import Equation, solved
from fxprune.rewrite.module_attributes import assign, number_at

READS = {nn.Linear: "in_features", CONVOLUTION: "in_channels"}
OF_A_MODULE = ("out_channels", "_out_channels")
Shape = tuple[int, ...]


def settle_widths(model: nn.Module, small: nn.Module, inputs: Inputs) -> None:
    """Set on a smaller copy what the original tells of its widths; what cannot be found out stays."""
    if list(_told(model)):
        _measure(model, small, inputs)
    if callable(getattr(model, "reset_classifier", None)) and type(getattr(model, "num_classes", None)) is int:
        _ask_the_builder(model, small)


def _measure(model: nn.Module, small: nn.Module, inputs: Inputs) -> None:
    before, after = _outputs(model, inputs), _outputs(small, inputs)
    for at, source in _told(model):
        pairs = [(old, new) for old, new in zip(before.get(source, ()), after.get(source, ()), strict=False)]
        numbers = {new[dim] for old, new in pairs for dim in range(min(len(old), len(new)))
                   if old[dim] == at.number != new[dim]}
        if len(numbers) == 1 and number_at(small, at) == at.number:
            assign(small, {at: numbers.pop()})


def _ask_the_builder(model: nn.Module, small: nn.Module) -> None:
    """Its new layers must be as wide as the copy's, and what it asks of attributes be answered as before."""
    book, root = Book({}), structural_copy(model)[0]
    mark(root, book)
    try:
        with torch.device("meta"), untouched_rng():
            root.reset_classifier(model.num_classes)  # type: ignore[operator]
        _answer(small, root, book)
    except Exception as error:  # a method that does not run on the original tells nothing
        own_bugs(error)
    finally:
        book.close()


def _answer(small: nn.Module, root: nn.Module, book: Book) -> None:
    """Set what the builder's new layers, and its questions, say of attributes."""
    wanted = [Equation(book.expression_of(getattr(module, name)), getattr(small.get_submodule(path), name))
              for path, module in named_modules(root) for kind, name in READS.items() if isinstance(module, kind)]
    facts = [Equation(guard.fact, guard.value) for guard in book.guards.values()]
    attributes = {at for equation in (*wanted, *facts) for at in equation.attributes}
    settled = [Equation(at, number_at(small, at)) for at in attributes if number_at(small, at) != at.number]
    found = solved([*settled, *filter(lambda equation: equation.attributes, wanted)], facts)
    assign(small, {at: number for at, number in found.items() if number_at(small, at) == at.number})


def _told(model: nn.Module) -> Iterator[tuple[Attribute, tuple[str, int]]]:
    """What is told, and the tensor whose length it is: of a method or a module, the how manieth that it gives."""
    for name, method in (("num_features", "forward_features"), ("head_hidden_size", "forward_head")):
        if hasattr(model, method) and type(vars(model).get(name)) is int:
            yield Attribute("", (name,), vars(model)[name]), (f"{method}()", 0)
    info = vars(model).get("feature_info")
    for index, row in enumerate(info if isinstance(info, list) else ()):
        if isinstance(row, dict) and {"num_chs", "module"} <= row.keys():
            yield Attribute("", ("feature_info", index, "num_chs"), row["num_chs"]), (row["module"], 0)
    for path, module in named_modules(model):
        for name in OF_A_MODULE if not type(module).__module__.startswith("torch.") else ():
            value: Any = vars(module).get(name)
            for index, number in enumerate(value if isinstance(value, (list, tuple)) else [value]):
                if type(number) is int:
                    yield (Attribute(path, (name, index), number), (path, index)) if number is not value else (
                        Attribute(path, (name,), number), (path, 0))


def _outputs(model: nn.Module, inputs: Inputs) -> dict[tuple[str, int], list[Shape]]:
    """The shapes of what modules give, on tensors without contents, up to where Python asks for contents."""
    found: dict[tuple[str, int], list[Shape]] = {}
    root = structural_copy(model)[0].eval()
    told = {source[0] for _, source in _told(model)}
    for path, module in named_modules(root):
        if path in told:
            module.register_forward_hook(_noting(found, path))
    args, kwargs = example_inputs.realise(inputs, "meta", torch.Generator().manual_seed(0))
    with untouched_rng(), torch.no_grad():
        try:
            if "forward_features()" not in told:
                root(*args, **kwargs)
                return found
            features = root.forward_features(*args, **kwargs)  # type: ignore[operator]
            _note(found, "forward_features()", features)
            _note(found, "forward_head()", root.forward_head(features, pre_logits=True))  # type: ignore[operator]
        except Exception as error:  # what has run until then has been noted
            own_bugs(error)
    return found


def _noting(found: dict[tuple[str, int], list[Shape]], path: str) -> Callable[..., None]:
    return lambda module, args, output: _note(found, path, output)


def _note(found: dict[tuple[str, int], list[Shape]], source: str, output: Any) -> None:
    for index, tensor in enumerate(trees.leaves(output, torch.Tensor)):
        found.setdefault((source, index), []).append(tuple(tensor.shape))
