"""Run a model again along the tape of its captured run: the i-th operator is the i-th call."""

from collections.abc import Collection
from typing import Any

from fxprune.capture.observed_mode import ObservedMode
from fxprune.capture.observer import NUMBER
from fxprune.errors import FxpruneError
from fxprune.ir.tape import Call, Tape

# What checks ask of a tensor; capture does without it.
ASIDE = {NUMBER, "aten::_is_all_true"}
# How far a run that data steers may skip along the tape.
AHEAD = 50


class Astray(FxpruneError):
    """The run left the tape."""


class Follower(ObservedMode):
    """Hands every operator to `handle` together with its call on the tape.

    Args:
        tape: of the captured run.
        strict: whether the run must follow the tape; where data steers the model's Python (module mode), operators
            that the tape does not know get None for a call.
        skipped: nodes that do not run.
    """

    def __init__(self, tape: Tape, strict: bool = True, skipped: Collection[str] = ()):
        super().__init__()
        calls = tape.ran or tape.calls
        self.calls = [call for call in calls if call.node not in skipped] if skipped else calls
        self.strict, self.position = strict, 0

    def handle(self, call: Call | None, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator."""
        return func(*args, **kwargs)

    def fits(self, call: Call, args: Any, kwargs: Any) -> bool:
        """Whether these operands may be that call's, where data may have led to another one of the same operator."""
        return True

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        return self.handle(self._call(func, args, kwargs), func, args, kwargs)

    def _call(self, func: Any, args: Any, kwargs: Any) -> Call | None:
        name = func._schema.name

        def met(position: int) -> bool:
            call = self.calls[position]
            return call.op == name and (self.strict or self.fits(call, args, kwargs))

        if self.position < len(self.calls) and met(self.position):
            self.position += 1
            return self.calls[self.position - 1]
        if name in ASIDE or not any("Tensor" in str(returned.type) for returned in func._schema.returns):
            return None
        if self.strict:
            expected = self.calls[self.position].op if self.position < len(self.calls) else "the end"
            raise Astray(f"the model must run as it was captured: operator {self.position} was {expected} then, and is "
                         f"{name} now")
        near = range(self.position, min(self.position + AHEAD, len(self.calls)))
        found = next(filter(met, near), None)
        if found is None:
            return None
        self.position = found + 1
        return self.calls[found]
