"""Data comes in: whatever a loader yields becomes arguments for the model, checked, moved, and bounded.

What needs data reads a few hundred samples; labels are used where there are some, and never needed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example, Inputs
from fxprune.ir.progress import progress
from fxprune.planning.split_data import Alone

# Images, sentences: enough for moments of some thousand inputs.
SAMPLES = 1024

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch.

    Args:
        raw: as the loader gave it, on the model's device and in its dtype; a loss of the user's gets this.
        example: the model's arguments.
        targets: what the batch holds beside them.
        size: its samples: the length of the first tensor's first dimension.
    """

    raw: Any
    example: Example
    targets: tuple[Any, ...]
    size: int


@dataclass(eq=False)
class Data:
    """Batches of a model's inputs, read as often as they are needed.

    Args:
        source: any iterable of batches: tensors, tuples ``(inputs, …, targets)``, dicts of keyword arguments; or one
            tensor, which is one batch.
        loss: ``loss(model, batch) -> scalar``, where gradients are needed; inferred where None.
        samples: how many are read at most, in whole batches; all where None.
        ranks: who else reads a part of the data.
    """

    source: Any
    loss: Loss | None = None
    samples: int | None = SAMPLES
    ranks: Alone = field(default_factory=Alone)
    _read: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.source, Iterable) or isinstance(self.source, (str, bytes)):
            raise InputError(f"data must be an iterable of batches (a DataLoader, a list of tensors), got "
                             f"{type(self.source).__name__}; write data=[batch] for a single one")
        if self.loss is not None and not callable(self.loss):
            raise InputError(f"loss must be called as loss(model, batch), got {type(self.loss).__name__}")
        if self.samples is not None and (isinstance(self.samples, bool) or not isinstance(self.samples, int)
                                         or self.samples < 1):
            raise InputError(f"samples must be an integer >= 1, or None for all, got {self.samples!r}")

    def batches(self, model: nn.Module, inputs: Inputs, what: str) -> Iterator[Batch]:
        """The batches, up to ``samples`` samples; a bar shows them.

        Args:
            model: tells device and dtype.
            inputs: the example inputs' description: how many arguments the model takes, and of which rank.
            what: they are read for, in a word or two.

        Raises:
            InputError: no batch, one that is not finite or does not fit, or a second pass over what allows one.
        """
        if self._read and iter(self.source) is self.source:
            raise InputError(f"data is exhausted after one pass ({self._read[0]}), and {what} needs another; pass a "
                             "list of batches or a DataLoader, not a generator")
        self._read.append(what)
        weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        seen = 0
        source = [self.source] if isinstance(self.source, Tensor) else self.source
        for number, raw in enumerate(progress(source, what)):
            if self.samples is not None and seen >= self.samples:
                break
            batch = _batch(_moved(raw, weight), inputs, number)
            seen += batch.size
            yield batch
        if not seen:
            raise InputError("data must hold at least one batch, got none; pass a loader, or a list of batches")


def _moved(raw: Any, weight: Tensor) -> Any:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(weight.device, weight.dtype if tensor.is_floating_point() else tensor.dtype)

    return tree_map_only(Tensor, move, dict(raw) if isinstance(raw, Mapping) else raw)


def _batch(raw: Any, inputs: Inputs, number: int) -> Batch:
    example, targets = _arguments(raw, max(len(inputs.args), 1))
    tensors = [t for t in tree_iter(example) if isinstance(t, Tensor)]
    if not tensors:
        raise InputError(f"data must yield tensors, tuples that begin with one, or dicts of keyword arguments, and "
                         f"batch {number} is of type {type(raw).__name__}")
    for tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"data must be finite, and batch {number} holds infinite or NaN values")
    first = next((t for t in tensors if t.dim()), None)
    size = 1 if first is None else first.shape[0]
    if first is not None and not size:
        raise InputError(f"every batch must hold samples, and batch {number} is empty: {list(first.shape)}")
    return Batch(raw, example, targets, size)


def _arguments(raw: Any, count: int) -> tuple[Example, tuple[Any, ...]]:
    if isinstance(raw, Mapping):
        return ((), dict(raw)), ()
    if not isinstance(raw, (tuple, list)):
        return ((raw,), {}), ()
    if raw and isinstance(raw[0], Mapping):
        return ((), dict(raw[0])), tuple(raw[1:])
    if raw and isinstance(raw[0], (tuple, list)):
        return (tuple(raw[0]), {}), tuple(raw[1:])
    return (tuple(raw[:count]), {}), tuple(raw[count:])
