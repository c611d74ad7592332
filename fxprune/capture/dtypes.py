"""Which dtypes in a graph follow a tensor, and which are constants.

``x.to(torch.float32)`` and ``x.to(y.dtype)`` look alike while ``y`` is float32. The model is captured once more in
another precision: a dtype that stays what it was is a constant.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.fx import Node

from fxprune.capture.model_walk import named_tensors
from fxprune.capture.outline import Outline
from fxprune.capture.own_errors import own_bugs
from fxprune.capture.pytrees import tree_map_only
from fxprune.capture.size_nodes import replaced_at
from fxprune.capture.traced import Traced
from fxprune.ir.example_inputs import Example

OTHER = {torch.float32: torch.float64, torch.float64: torch.float32, torch.bfloat16: torch.float32,
         torch.float16: torch.float32}


def cast(root: nn.Module, dtype: torch.dtype) -> None:
    """Parameters and buffers of that dtype get the other one, in place."""
    for _, tensor in named_tensors(root):
        if tensor.dtype is dtype:
            tensor.data = tensor.data.to(OTHER[dtype])


def asked(traced: Traced) -> list[torch.dtype]:
    """The dtypes that nodes of the graph read from a tensor, and that have another one to try."""
    read = dict.fromkeys(node.meta["dtype"] for node in traced.graph.nodes if "dtype" in node.meta)
    return [dtype for dtype in read if dtype in OTHER]


def recast(example: Example, dtype: torch.dtype) -> Example:
    """The inputs, those of that dtype in the other one."""
    return tree_map_only(torch.Tensor, lambda t: t.to(OTHER[dtype]) if t.dtype is dtype else t, example)


def settle_dtypes(traced: Traced, example: Example, again: Callable[[Example, torch.dtype], Traced],
                  dtypes: Sequence[torch.dtype]) -> None:
    """Write every dtype, out of these, that follows no tensor as the constant that it is.

    Args:
        traced: of a run on ``example``; its graph is changed.
        again: captures the model on other inputs, and with all tensors of the given dtype in another.
    """
    for dtype in dtypes:
        try:
            retraced = again(recast(example, dtype), dtype)
        except Exception as error:  # the model runs in this precision only: nothing has to follow, and nothing can tell
            own_bugs(error)
            continue
        base, there = Outline.of(traced), Outline.of(retraced)
        if not base.differs(there):
            write_constants(traced, base, there, dtype)


def write_constants(traced: Traced, base: Outline, there: Outline, dtype: torch.dtype) -> None:
    """Those dtypes of the graph ``base`` that stayed what they were ``there``, where tensors had another, are
    constants."""
    for (number, path), ours in base.dtypes.items():
        if isinstance(ours, Node) and ours.meta["dtype"] is dtype is there.dtypes[number, path]:
            node = base.nodes[number]
            node.args, node.kwargs = replaced_at((node.args, node.kwargs), path, dtype)
            if not ours.users:
                traced.graph.erase_node(ours)
