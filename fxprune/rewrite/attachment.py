"""Where a module keeps what fxprune knows of it: along with copies and pickles of the module, and out of its state."""

import pickle
from typing import Any

from torch import nn
from torch.fx import GraphModule

# A GraphModule copies and pickles its ``meta``, any other module its ``__dict__``.
_KEY, _ATTRIBUTE = "fxprune", "_fxprune_record"


class Carried:
    """What is kept with a module of the user's own class, whose pickle must load where there is no fxprune: there it is
    so many bytes."""

    def __init__(self, value: Any):
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> "Carried":
        return self

    def __reduce__(self) -> Any:
        return bytes, (pickle.dumps(self.value),)


def attach_to(module: nn.Module, value: Any) -> None:
    """Keep the value with the module, in the place of an earlier one."""
    if isinstance(module, GraphModule):
        module.meta[_KEY] = value
    else:
        module.__dict__[_ATTRIBUTE] = Carried(value)


def attached_to(module: nn.Module) -> Any:
    """What is kept with the module, or None."""
    if isinstance(module, GraphModule):
        return module.meta.get(_KEY)
    found = getattr(module, _ATTRIBUTE, None)
    if isinstance(found, bytes):
        found = module.__dict__[_ATTRIBUTE] = Carried(pickle.loads(found))
    return None if found is None else found.value
