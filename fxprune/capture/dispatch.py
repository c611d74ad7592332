"""Where torch sends its operators: modes that see each of them, and what an operator is."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as outside_modes

__all__ = ["BUILTINS", "TorchDispatchMode", "argument_names", "operator_name", "outside_modes", "storage_of", "writes"]

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


def storage_of(tensor: torch.Tensor) -> int:
    """A number that tensors of one memory share, while it is held; a tensor that is not strided has its own."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)
