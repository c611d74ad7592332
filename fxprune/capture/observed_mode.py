"""A mode that sees of a run what an observer records of it."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from fxprune.capture.observer import observed


class ObservedMode(TorchDispatchMode):
    """Hands on the operators that an observer would record, composites without a rule taken apart as it does."""

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator that an observer would record."""
        raise NotImplementedError

    def skip(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run one that it would not."""
        return func(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        how = observed(func, args)
        if how == "decompose":
            with self:
                return func.decompose(*args, **kwargs)
        return self.skip(func, args, kwargs) if how == "skip" else self.record(func, args, kwargs)
