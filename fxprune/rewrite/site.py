"""What a literal or a module table entry may ask: which indices of a call's tensors stay."""

import math
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from fxprune.capture.outline import numbered
from fxprune.capture.sizes import leaves
from fxprune.coupling.view import View
from fxprune.errors import FxpruneError
from fxprune.ir.tape import Ref
from fxprune.rules.bugs import failed
from fxprune.rules.registry import literals_of
from fxprune.rules.targets import qualified


class LiteralError(FxpruneError):
    """A call holds a size that cannot be rewritten; what reaches ``node`` must be frozen."""

    def __init__(self, node: str, why: str):
        super().__init__(f"{node}: {why}")
        self.node, self.why = node, why


@dataclass(frozen=True)
class Natural:
    """An argument that is to be recomputed at run time from the shrunken sizes, times ``times`` over ``over``."""

    node: Node
    times: int = 1
    over: int = 1


@dataclass
class Site:
    """One call of the graph, as its literals see it."""

    node: Node
    view: View
    constant: Callable[[torch.Tensor, Node | None], Any]

    def ref(self, arg: Any) -> Ref | None:
        """The tensor that an argument stands for, or None."""
        return self.view.refs(arg.name).get(()) if isinstance(arg, Node) else None

    def masks(self, arg: Any) -> list[np.ndarray]:
        ref = self.ref(arg)
        return [] if ref is None else self.view.masks(ref)

    def lengths(self, arg: Any) -> tuple[int, ...]:
        return tuple(int(np.count_nonzero(mask)) for mask in self.masks(arg))

    def shape(self, arg: Any) -> tuple[int, ...]:
        """The original shape; that of a scalar where ``arg`` is no tensor."""
        ref = self.ref(arg)
        return () if ref is None else ref.shape

    def outs(self) -> list[tuple[int, ...]]:
        """The new shapes of the tensors in the call's value."""
        return [self.view.lengths(ref) for ref in self.view.refs(self.node.name).values()]

    def out_masks(self) -> list[list[np.ndarray]]:
        """Of these tensors' dimensions, which indices are kept."""
        return [self.view.masks(ref) for ref in self.view.refs(self.node.name).values()]

    def shrunk(self) -> bool:
        """Whether any tensor in the value gets smaller."""
        return any(self.view.lengths(ref) != ref.shape for ref in self.view.refs(self.node.name).values())

    def value(self, arg: Any) -> Any:
        """The original value of a size argument, or the contents of an index tensor where they are known."""
        if not isinstance(arg, Node):
            return arg
        if "size" in arg.meta:
            return self.view.evaluate(arg.meta["size"], natural=False)
        ref = self.ref(arg)
        return None if ref is None else self.view.tape.values.get(ref.id)

    def size(self, arg: Any, length: int) -> Any:
        """A size argument that must be ``length`` now: as it stands where it will be recomputed to that."""
        if isinstance(arg, Node) and "size" in arg.meta:
            return self._recomputed(arg, length)
        if isinstance(arg, Node) or arg == -1:
            return arg
        return length

    def _recomputed(self, arg: Node, length: int) -> Any:
        """In ``batch * 8`` only the 8 may be replaced; a batch of one leaves no trace in what is known of a size."""
        expression = arg.meta["size"]
        natural = self.view.evaluate(expression, natural=True)
        if natural == length:
            return Natural(arg)
        if not natural:
            return length
        common = math.gcd(length, natural)
        return Natural(arg, length // common, natural // common)

    def refuse(self, why: str) -> LiteralError:
        return LiteralError(self.node.name, why)


def rewritten(node: Node, view: View, constant: Callable[[torch.Tensor, Node | None], Any]) -> tuple[Any, Any, Any]:
    """Target and arguments of a call, every size that it holds written as what is left of it.

    Raises:
        LiteralError: a size cannot be rewritten.
        RuleError: the operator's literals failed.
    """
    call = node.target, node.args, node.kwargs
    if node.op not in ("call_function", "call_method") or "size" in node.meta:
        return call
    literals = literals_of(node.target)
    if literals is None or not view.refs(node.name) and node.target is not operator.setitem:
        return call
    try:
        return literals(Site(node, view, constant), *call)
    except LiteralError:
        raise
    except Exception as error:
        raise failed(qualified(node.target), "literals", node.meta.get("source", ""), error) from error


def numbers_for(node: Node, view: View, args: Any, kwargs: Any) -> list[Any]:
    """The sizes of a call, rewritten to these arguments, in whose place a number stands now, which the weights do not
    decide: channels that an input's length tells apart."""
    old, new = (Counter(leaf.node if isinstance(leaf, Natural) else leaf for _, leaf in numbered(tree, Natural)
                        if isinstance(leaf, (Node, Natural))) for tree in ((node.args, node.kwargs), (args, kwargs)))
    sizes = [arg.meta["size"] for arg in old - new]
    return [size for size in sizes if not all(map(view.determined, leaves(size)))]
