"""What no plan changes and large models' precision may not show: an epsilon, a slope, a probability.

A norm's epsilon of 2e-5 in place of 1e-5 moves its values by less than single precision has to allow. It needs no run:
what layers are set to, and the fractions that calls are given, are the original's.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.fx import Graph

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.model_walk import named_modules
from fxprune.errors import VerificationError


def check_settings(model: nn.Module, small: nn.Module) -> None:
    """Every layer of torch.nn has the original's settings that are no sizes.

    Raises:
        VerificationError: the first that has not.
    """
    original = dict(named_modules(model))
    for path, module in named_modules(small):
        like = original.get(path)
        if type(like) is not type(module) or not is_leaf(module):
            continue
        for name, wanted in vars(like).items():
            if type(wanted) in (float, str) and vars(module).get(name, wanted) != wanted:
                raise VerificationError.at(path, f"{path}.{name} must be {wanted!r} as in the original, got "
                                           f"{vars(module)[name]!r}; the result is wrong and was not returned")


def check_fractions(captured: Graph, pruned: Graph) -> None:
    """Every call is given the fractions that it was captured with.

    Raises:
        VerificationError: the first that is not.
    """
    calls = {node.name: node for node in captured.nodes}
    for node in pruned.nodes:
        like = calls.get(node.name)
        if like is None or like.target != node.target:
            continue
        for wanted, got in _pairs((like.args, like.kwargs), (node.args, node.kwargs)):
            if wanted != got and wanted == wanted:
                raise VerificationError.at(
                    node.name, f"node {node.name!r} must be given {wanted!r} as in the original, got {got!r}; the "
                    "result is wrong and was not returned")


def _pairs(a: Any, b: Any) -> Iterator[tuple[float, float]]:
    """The fractions at the same places of two nests."""
    if type(a) is float and type(b) is float:
        yield a, b
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() & b.keys():
            yield from _pairs(a[key], b[key])
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        for x, y in zip(a, b, strict=False):
            yield from _pairs(x, y)
