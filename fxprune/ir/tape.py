"""What was seen when the model ran once: a list of operator calls without any tensor in it.

The tape is data. The observer (``capture``) writes it, the coupling analysis replays it through the rules as often as
it likes, and verification walks along it to know which call of the running original stands for which node.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fxprune.ir.trees import leaves


@dataclass(frozen=True)
class Ref:
    """Stands for one tensor of the observed run."""

    id: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorDim:
    """One dimension of one tensor of an observed run, by the numbers of the tape and of the tensor's `Ref`."""

    tape: int
    tensor: int
    dim: int


@dataclass(frozen=True)
class Call:
    """One operator call: ``op`` is its qualified name (``aten::conv2d``), tensors are replaced by ``Ref``."""

    op: str
    overload: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: Any
    node: str
    source: str


@dataclass
class Tape:
    """The calls in order, and what is known of their tensors.

    Args:
        params: the tensors that are parameters or buffers, by their first name.
        constants: those that the model holds without having registered them.
        inputs: those that are inputs, by the argument's name.
        outputs: those that the model returns, and ``output_names`` what they are called there.
        masks: those that select where they are an index: of booleans, or of bytes.
        values: contents of integer and boolean tensors, where they are known.
        nodes: the tensors that each graph node stands for, by their path in its value.
        storages: which tensors share memory.
        ran: all calls in order, where ``calls`` leaves out dead code.
        modules: first input and first output of every call of a leaf module, by its path (module mode).
    """

    calls: list[Call] = field(default_factory=list)
    params: dict[int, str] = field(default_factory=dict)
    constants: dict[int, str] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    masks: set[int] = field(default_factory=set)
    values: dict[int, np.ndarray] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    storages: dict[int, int] = field(default_factory=dict)
    ran: list[Call] = field(default_factory=list)
    modules: dict[str, list[tuple[Ref | None, Ref | None]]] = field(default_factory=dict)

    @property
    def tensors_read(self) -> set[int]:
        """The tensors that some call reads, and those that the model returns."""
        return {ref.id for call in self.calls for ref in refs((call.args, call.kwargs))}.union(self.outputs)

    @property
    def read(self) -> set[str]:
        """The parameters and buffers that some call reads."""
        seen = {ref.id for call in self.calls for ref in refs((call.args, call.kwargs))}
        return {name for number, name in self.params.items() if number in seen}


def refs(tree: Any) -> Iterator[Ref]:
    """The tensors in nested arguments, in order.

    >>> [ref.id for ref in refs([Ref(1, (2,)), {"a": (Ref(2, ()), 3)}])]
    [1, 2]
    """
    return iter(leaves(tree, Ref))


def writes(call: Call) -> set[int]:
    """The tensors that a call writes into: what it is given and gives."""
    return {ref.id for ref in refs((call.args, call.kwargs))} & {ref.id for ref in refs(call.outs)}
