"""How the operators of both sides are computed: in one precision, whatever the model asks for.

A cast to another precision is none, and every operator is given all its operands in one: layers of several dtypes,
norms that go down to ``float32`` and regions of autocast are then as sharp as the rest. What is proven is the
structure, and that does not depend on precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fxprune.capture.dispatch import aliased, storage_of
from fxprune.capture.pytrees import tree_map_only
from fxprune.ir.trees import tensors_in
from fxprune.verification.determined import run

Run = Callable[[Any, Any, Any], Any]

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
# The same bits, read as something else.
_REINTERPRETING = {torch.ops.aten.view.dtype}


@dataclass(frozen=True)
class Arithmetic:
    """A precision, and where the weights lie meanwhile.

    Args:
        wide: that of every operator; None: each computes in that of its operands.
        stored: whether weights stay stored in their own precision, and are widened operator by operator: no copy of
            all of them is made, but Python that compares the dtypes of layers and inputs sees two.
        skipping: whether the numbers that are drawn are such that layers which may be skipped are.
    """

    wide: torch.dtype | None
    stored: bool = False
    skipping: bool = False

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator without its randomness."""
        if self.wide is None or func in _REINTERPRETING:
            return run(func, args, kwargs, self.skipping)
        # What is written into, or of which the result may be a view, stays itself.
        positions, names = aliased(func)
        args = tuple(arg if k in positions else self.widened(arg) for k, arg in enumerate(args))
        wide = {name: arg if name in names else self.widened(arg) for name, arg in kwargs.items()}
        return run(func, args, wide, self.skipping)

    def widened(self, value: Any) -> Any:
        """Tensors and dtypes in this precision, but for those that hold no fractions."""
        if isinstance(value, torch.Tensor):
            dtype = self._dtype(value.dtype)
            return value if dtype is value.dtype else value.to(dtype)
        if isinstance(value, torch.dtype):
            return self._dtype(value)
        if type(value) in (list, tuple):
            return type(value)(map(self.widened, value))
        return value

    def stored_as(self, dtype: torch.dtype) -> torch.dtype:
        """In which dtype weights of this one lie."""
        return dtype if self.stored else self._dtype(dtype)

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        if self.wide is None or not dtype.is_floating_point and not dtype.is_complex:
            return dtype
        return _COMPLEX[self.wide] if dtype.is_complex else self.wide


def with_rounding(compute: Run, seed: int) -> Run:
    """The same, with every result changed by random amounts that rounding could change it by.

    How far values then move is how well rounding lets them be known (Parker, Monte Carlo Arithmetic, UCLA CSD-970002,
    1997): of a mean that is zero by construction nothing is left but that.

    >>> noisy = with_rounding(Arithmetic(None).run, 0)
    >>> moved = noisy(torch.ops.aten.add.Tensor, (torch.ones(3), 1.0), {}) - 2
    >>> bool(moved.any()), bool((moved.abs() < 1e-6).all())
    (True, True)
    """
    generator = torch.Generator().manual_seed(seed)

    def changed(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() and not tensor.is_complex():
            return tensor
        steps = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).mul_(2).sub_(1)
        return tensor * steps.mul_(torch.finfo(tensor.dtype).eps).add_(1).to(tensor)

    def rounded(func: Any, args: Any, kwargs: Any) -> Any:
        given = {storage_of(tensor) for tensor in tensors_in((args, kwargs))}
        out = compute(func, args, kwargs)
        return tree_map_only(torch.Tensor, lambda t: t if storage_of(t) in given else changed(t), out)

    return rounded
