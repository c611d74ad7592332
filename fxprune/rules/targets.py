"""Which operator a call in a graph names."""

from typing import Any

import torch

# ``torch.ops.aten.view`` and ``torch.ops.aten.view.default``.
OPERATORS = (type(torch.ops.aten.view), type(torch.ops.aten.view.default))


def qualified(target: Any) -> str:
    """The qualified name of what an fx node calls: a method's name, a function or an operator.

    Functions that belong neither to torch nor to Python's ``operator`` are named after their module, so that a
    ``pad`` of the user's own is not taken for torch's.

    >>> import operator, textwrap
    >>> qualified("chunk"), qualified(torch.chunk), qualified(torch.ops.aten.chunk.default)
    ('aten::chunk', 'aten::chunk', 'aten::chunk')
    >>> qualified(torch.nn.functional.pad), qualified(operator.getitem), qualified(textwrap.fill)
    ('aten::pad', 'operator::getitem', 'textwrap::fill')
    """
    if isinstance(target, str):
        return f"aten::{target}"
    if isinstance(target, OPERATORS):
        return "::".join(str(target).split(".")[:2])
    module = (getattr(target, "__module__", None) or "").lstrip("_")
    if module.partition(".")[0] == "torch":
        return f"aten::{target.__name__}"
    return f"{module}::{getattr(target, '__qualname__', type(target).__qualname__)}"
