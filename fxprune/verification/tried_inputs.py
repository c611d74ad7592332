"""Which inputs both sides are given: random ones, at the given and at another size, as long as the original takes them,
else the user's own example."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import nn

from fxprune.capture.capturing import Captured
from fxprune.capture.dynamic_sizes import Axis
from fxprune.capture.pytrees import tree_map_only
from fxprune.ir import example_inputs
from fxprune.ir.example_inputs import Example, Inputs
from fxprune.verification.input_dimensions import Change, all_other

# Not of the inputs' values, but of the numbers that are drawn.
SKIPPING = "skipping"
EVERY, GIVEN = "every dimension is of another length", "compared at the given sizes only"
# Of a real-valued tensor's spread: the user's own example holds nothing by accident, either.
NOISE = 0.1


def planned(captured: Captured) -> list[tuple[str, bool, str]]:
    """Mode, whether at another size, and the variation of the inputs' values: both modes and both sizes, and
    all of them where graphs differ; in module mode every way through the model's Python that was found."""
    alike = "train" in captured.modes and captured.modes["train"] is captured.modes["eval"]
    runs = [("eval", False, ""), ("train", True, "")] if alike else \
        [(mode, second, "") for mode in captured.modes for second in (False, True)]
    runs += [(mode, False, SKIPPING) for mode, traced in captured.modes.items() if traced.skipped]
    return runs + [("eval", False, variation) for variation in captured.ways]


def candidates(model: nn.Module, inputs: Inputs, own: Example | None, changes: Iterable[tuple[Change, str]],
               dtype: torch.dtype | None, seed: int) -> Iterator[tuple[Example, str]]:
    """Inputs in the order in which they are tried, until both sides are compared, and what is to be said of each.

    Args:
        inputs: the description of the user's example.
        own: the example itself, where it is at hand.
        changes: of its sizes, and what is to be said of each.
        dtype: that of real-valued ones; None: their own.
    """
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    for change, words in changes:
        yield example_inputs.realise(inputs, device, torch.Generator().manual_seed(seed), change, dtype), words
    if own is None:
        return
    generator = torch.Generator().manual_seed(seed)
    yield _like(own, dtype, lambda t: _noisy(t, generator)), "compared on the example itself, with noise"
    yield _like(own, dtype, lambda t: t), "compared on the example itself, as it is"


def given_size(words: str = "") -> tuple[Change, str]:
    """No change."""
    return lambda spec: spec, words


def other_sizes(inputs: Inputs, axes: list[Axis]) -> Iterator[tuple[Change, str]]:
    """Every dimension that may be free; the batch one larger wherever it stands first; then wherever a dimension is as
    long (an adjacency matrix); none."""
    yield from ((change, EVERY) for change in all_other(axes))
    yield example_inputs.second_batch(inputs), ""
    shapes = [spec.shape for spec in example_inputs.specs(inputs) if spec.shape]
    batch = shapes[0][0] if shapes else 0
    if any(batch in shape[1:] for shape in shapes):
        yield lambda spec: replace(spec, shape=tuple(n + (n == batch) for n in spec.shape)), ""
    yield given_size(GIVEN)


def _like(example: Example, dtype: torch.dtype | None, change: Callable[[torch.Tensor], torch.Tensor]) -> Example:
    def make(tensor: torch.Tensor) -> torch.Tensor:
        changed = change(tensor.detach()).clone()
        return changed.to(dtype) if dtype is not None and tensor.is_floating_point() else changed

    made: Example = tree_map_only(torch.Tensor, make, example)
    return made


def _noisy(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point() and not tensor.is_complex():
        return tensor
    spread = float(tensor.abs().mean()) if tensor.numel() else 0.0
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
    return tensor + NOISE * spread * noise
