"""What a model's Python asks of its values in training: whether they are finite.

``if not torch.isfinite(x).all(): x = x.clamp(…)`` is how detectors guard against an overflow of half precision. A graph
takes one way: that of finite values, and asserts that they are. What follows from finiteness alone is followed here,
apart from what is known: an index that is made of it may well hold something.
"""

from collections.abc import Callable
from typing import Any

import torch

from fxprune.capture.pytrees import tree_map_only
from fxprune.ir.trees import leaves

_TESTS = {"aten::isfinite": True, "aten::isnan": False, "aten::isinf": False, "aten::isposinf": False,
          "aten::isneginf": False}


class Finiteness:
    """What the tensors of a run hold, should all values be finite.

    Args:
        known: the contents of a tensor that is constant, or None.
    """

    def __init__(self, known: Callable[[torch.Tensor], torch.Tensor | None]):
        self.known = known
        self.asked = False  # by Python, since somebody looked last
        self._held: dict[int, torch.Tensor] = {}

    def follow(self, name: str, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """An operator has run that draws nothing and writes into nothing."""
        if name in _TESTS:
            self._held[id(out)] = torch.full(out.shape, _TESTS[name])
        elif isinstance(out, torch.Tensor) and self._holds(args, kwargs):
            self._held[id(out)] = self._computed(func, args, kwargs)

    def read(self, func: Any, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Whether finiteness tells what Python reads, and what it reads then."""
        if not self._holds(args, kwargs):
            return False, None
        self.asked = True
        return True, self._computed(func, args, kwargs)

    def _holds(self, args: Any, kwargs: Any) -> bool:
        tensors = leaves((args, kwargs), torch.Tensor)
        return any(id(t) in self._held for t in tensors) and \
            all(id(t) in self._held or self.known(t) is not None for t in tensors)

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        def value(tensor: torch.Tensor) -> torch.Tensor | None:
            return self._held[id(tensor)] if id(tensor) in self._held else self.known(tensor)

        args, kwargs = tree_map_only(torch.Tensor, value, (args, kwargs))
        return func(*args, **kwargs)
