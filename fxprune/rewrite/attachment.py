"""Where a module keeps what fxprune knows of it: along with copies and pickles of the module, and out of its state."""

from typing import Any

from torch import nn
from torch.fx import GraphModule

# A GraphModule copies and pickles its ``meta``, any other module its ``__dict__``.
_KEY, _ATTRIBUTE = "fxprune", "_fxprune_record"


def attach_to(module: nn.Module, value: Any) -> None:
    """Keep the value with the module, in the place of an earlier one."""
    if isinstance(module, GraphModule):
        module.meta[_KEY] = value
    else:
        module.__dict__[_ATTRIBUTE] = value


def attached_to(module: nn.Module) -> Any:
    """What is kept with the module, or None."""
    return module.meta.get(_KEY) if isinstance(module, GraphModule) else module.__dict__.get(_ATTRIBUTE)
