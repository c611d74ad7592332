"""Which dimensions of a tensor the contents of the input decide on, where a model is traced on true tensors.

An operator such as a boolean index makes them. Whatever is made of such a tensor is asked once more on the meta device,
with just those dimensions longer: what is longer there follows the data as well. Where that cannot be asked, all
dimensions are taken to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fxprune.capture.dispatch import operator_name, outside_modes
from fxprune.capture.pytrees import tree_map_only
from fxprune.ir.trees import leaves

Dims = frozenset[int]
# By how much longer a dimension is when it is asked again: a change of one might be hidden by broadcasting.
LONGER = 5
SELECTING = (torch.bool, torch.uint8)
NUMBERED = {"aten::unbind", "aten::split"}


class DataShapes:
    """What is known of the tensors of one run, by their numbers on the tape.

    Attributes:
        dims: the dimensions that the data decide on.
        given: the numbers that they decide on among the arguments of the function that the model calls just now.
    """

    def __init__(self) -> None:
        self.dims: dict[int, Dims] = {}
        self.given: frozenset[int] = frozenset()

    def __contains__(self, axis: tuple[int, int]) -> bool:
        """Whether the data decide on this dimension of this tensor."""
        number, dim = axis
        return dim in self.dims.get(number, ())

    def number_of(self, func: Any, args: Any, operands: Mapping[int, int]) -> bool:
        """Whether they decide on how many tensors the call gives."""
        if operator_name(func) not in NUMBERED:
            return False
        at = 1 if operator_name(func) == "aten::unbind" else 2
        dim = (args[at] if len(args) > at else 0) % max(args[0].dim(), 1)
        return (operands[id(args[0])], dim) in self

    def note(self, func: Any, args: Any, kwargs: Any, operands: Mapping[int, int],
             outs: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Take down what a call gave: the tensors among its arguments by ``id``, and its results, by their numbers."""
        known = {key: self.dims[number] for key, number in operands.items() if self.dims.get(number)}
        made = sized_by_data(func, args, kwargs)
        if known or made or self.given:
            found = self._found(func, args, kwargs, known, [out for _, out in outs], made)
            self.dims.update({number: dims for (number, _), dims in zip(outs, found, strict=True)})

    def _found(self, func: Any, args: Any, kwargs: Any, known: Mapping[int, Dims], outs: list[torch.Tensor],
               made: bool) -> list[Dims]:
        everything = [frozenset(range(out.dim())) for out in outs]
        name = operator_name(func)
        if made and name != "aten::index":
            return everything
        if self.given:  # sizes that would not fit longer operands
            operands = leaves((args, kwargs), torch.Tensor)
            lengths = self.given.union(t.shape[d] for t in operands for d in known.get(id(t), ()))
            return [frozenset(d for d, n in enumerate(out.shape) if n in lengths) for out in outs]
        try:
            again = leaves(_longer(func, args, kwargs, known), torch.Tensor)
        except Exception:  # whatever it says to lengths that nobody asked for
            return everything
        if len(again) != len(outs):
            return everything
        return [frozenset(d for d, (n, other) in enumerate(zip(out.shape, more.shape, strict=True)) if n != other)
                for out, more in zip(outs, again, strict=True)]


def _longer(func: Any, args: Any, kwargs: Any, known: Mapping[int, Dims]) -> Any:
    """The call on the meta device, with longer dimensions; masks select more there."""

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        dims = known.get(id(tensor), frozenset())
        shape = [n + LONGER if d in dims else n for d, n in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device="meta")

    with outside_modes():
        if operator_name(func) == "aten::index":
            args = (args[0], [part for index in args[1] for part in _selected(index)])
        given = tree_map_only(torch.device, lambda device: torch.device("meta"), (args, kwargs))
        args, kwargs = tree_map_only(torch.Tensor, stand_in, given)
        return func(*args, **kwargs)


def _selected(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A mask as indices of its places, and some more."""
    if index is None or index.dtype not in SELECTING:
        return [index]
    return [torch.zeros(int(index.sum()) + LONGER, dtype=torch.long) for _ in range(index.dim())]


def sized_by_data(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether contents decide on the shape of the result. Of torch's own operators tags say so; of others a meta kernel
    that cannot tell the shape, or that there is none."""
    name, tensors = operator_name(func), leaves((args, kwargs), torch.Tensor)
    if name == "aten::index":
        return any(t.dtype in SELECTING for t in tensors[1:])
    if name in ("aten::where", "aten::nonzero_numpy"):
        return len(tensors) == 1
    if name.startswith("aten::"):
        return torch.Tag.dynamic_output_shape in func.tags
    try:
        func(*tree_map_only(torch.Tensor, lambda t: t.to("meta"), args),
             **tree_map_only(torch.Tensor, lambda t: t.to("meta"), kwargs))
    except Exception:
        return True
    return False
