"""Where torch sends its operators: modes that see each of them, and what an operator is."""

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as outside_modes

__all__ = ["BUILTINS", "TorchDispatchMode", "aliased", "argument_names", "is_wrapped", "operator_name", "outside_modes",
           "storage_of", "writes"]

# Functions of torch that public modules call and do not name.
BUILTINS = (("torch._C._nn", torch._C._nn), ("torch._VF", torch._VF))


def operator_name(func: Any) -> str:
    """The qualified name, without the overload.

    >>> operator_name(torch.ops.aten.add.Tensor)
    'aten::add'
    """
    return func._schema.name


def argument_names(func: Any) -> list[str]:
    """The names of its arguments, in order.

    >>> argument_names(torch.ops.aten.add.Tensor)
    ['self', 'other', 'alpha']
    """
    return [argument.name for argument in func._schema.arguments]


def writes(func: Any) -> bool:
    """Whether it writes into an argument.

    >>> writes(torch.ops.aten.add_.Tensor), writes(torch.ops.aten.add.Tensor)
    (True, False)
    """
    return bool(func._schema.is_mutable)


@cache
def aliased(func: Any) -> tuple[frozenset[int], frozenset[str]]:
    """The arguments that it writes into, or whose memory its result may share: their positions and names.

    >>> [sorted(places) for places in aliased(torch.ops.aten.add_.Tensor)]
    [[0], ['self']]
    """
    arguments = [(k, a.name) for k, a in enumerate(func._schema.arguments) if a.alias_info is not None]
    return frozenset(k for k, _ in arguments), frozenset(name for _, name in arguments)


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether it stands for another tensor, inside of a transform of ``torch.func``."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def storage_of(tensor: torch.Tensor) -> int:
    """A number that tensors of one memory share, while it is held; a tensor that is not strided has its own."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)
