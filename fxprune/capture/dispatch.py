"""Where torch sends its operators: modes that see each of them, and what an operator is."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as outside_modes

__all__ = ["BUILTINS", "TorchDispatchMode", "operator_name", "outside_modes"]

# Functions of torch that public modules call and do not name.
BUILTINS = (("torch._C._nn", torch._C._nn), ("torch._VF", torch._VF))


def operator_name(func: Any) -> str:
    """The qualified name, without the overload.

    >>> operator_name(torch.ops.aten.add.Tensor)
    'aten::add'
    """
    return func._schema.name
