"""Run models stepwise: each run waits at chosen operators until it is told to go on.

So several batches, and two networks, are worked through abreast, layer by layer: what is learned at a layer from all
batches is in place before any of them goes on. Each run is a thread that only ever runs while its owner waits for it.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Semaphore, Thread
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from fxprune.capture.observed_mode import ObservedMode
from fxprune.capture.observer import SAME, facts
from fxprune.capture.patches import Patch, Replacement, replaced, replacements
from fxprune.ir.example_inputs import Example


class Numbered(ObservedMode):
    """Numbers the operators of a run, those that an observer would record; the same run gets the same numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def handle(self, number: int, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator."""
        return func(*args, **kwargs)

    def same(self, tensor: torch.Tensor, out: torch.Tensor) -> None:
        """``out`` is ``tensor``, laid out anew."""

    def skip(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        if facts(func).name in SAME:
            self.same(args[0], out)
        return out

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.count += 1
        return self.handle(self.count - 1, func, args, kwargs)


class _Aborted(BaseException):
    """Nobody waits for the run any more."""


class Stepwise:
    """A run of a function that waits wherever it calls `wait`.

    >>> run = Stepwise(lambda run: [run.wait(k) for k in range(2)])
    >>> run.advance(), run.advance(), run.advance()
    (0, 1, None)
    """

    def __init__(self, work: Callable[["Stepwise"], Any]):
        self._go, self._come = Semaphore(0), Semaphore(0)
        self._event: Any = None
        self._error: BaseException | None = None
        self._aborted = False
        self._replacements: Mapping[Patch, Replacement] = {}
        self._thread = Thread(target=self._run, args=(work,), daemon=True)

    def advance(self) -> Any:
        """Go on to the next `wait`, and give what it was called with; None at the end.

        Raises:
            Exception: whatever the function raises.
        """
        self._event = None
        if self._thread.ident is None:
            self._replacements = replacements()
            self._thread.start()
        elif self._thread.is_alive():
            self._go.release()
        else:
            return None
        self._come.acquire()
        if self._error is not None:
            raise self._error
        return self._event

    def wait(self, event: Any) -> None:
        """Called by the function: hand ``event`` over, and wait."""
        self._event = event
        self._come.release()
        self._go.acquire()
        if self._aborted:
            raise _Aborted

    def close(self) -> None:
        """End the run where it stands."""
        self._aborted = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()

    def _run(self, work: Callable[["Stepwise"], Any]) -> None:
        try:
            with replaced(self._replacements):
                work(self)
        except _Aborted:
            pass
        except BaseException as error:
            self._error = error
        self._come.release()


@dataclass(frozen=True, eq=False)
class Stop:
    """Where a run waits: before an operator (its arguments can be read, its weights changed) or behind it.

    Args:
        number: of the operator.
        args, kwargs: its arguments.
        out: its result; None before it has run.
        held: results of earlier operators that were asked for, by number.
    """

    number: int
    args: Any
    kwargs: Any
    out: Any
    held: Mapping[int, torch.Tensor]


class _Stops(Numbered):
    def __init__(self, meet: Callable[[Stop], None], before: frozenset[int], behind: frozenset[int],
                 hold: Mapping[int, int]):
        super().__init__()
        self.meet, self.before, self.behind, self.hold = meet, before, behind, hold
        self.held: dict[int, torch.Tensor] = {}

    def handle(self, number: int, func: Any, args: Any, kwargs: Any) -> Any:
        if number in self.before:
            self._stop(number, args, kwargs, None)
        out = func(*args, **kwargs)
        if number in self.behind:
            self._stop(number, args, kwargs, out)
        if number in self.hold:
            self.held[number] = out
        for gone in [k for k in self.held if self.hold[k] <= number]:
            del self.held[gone]
        return out

    def _stop(self, number: int, args: Any, kwargs: Any, out: Any) -> None:
        # What is done with the tensors meanwhile is none of the run's operators.
        with _disable_current_modes():
            self.meet(Stop(number, args, kwargs, out, self.held))


def watched(model: nn.Module, example: Example, behind: Iterable[int], meet: Callable[[Stop], None]) -> None:
    """One run in inference mode; ``meet`` is called behind each operator of these numbers."""
    with torch.inference_mode(), _Stops(meet, frozenset(), frozenset(behind), {}):
        model(*example[0], **example[1])


def stepwise(model: nn.Module, example: Example, before: Iterable[int] = (), behind: Iterable[int] = (),
             hold: Mapping[int, int] | None = None, around: AbstractContextManager[Any] | None = None) -> Stepwise:
    """A run of ``model`` in inference mode that waits before and behind operators of these numbers.

    Args:
        hold: number of an operator whose result is wanted -> number of the last stop that wants it.
        around: entered in the run's thread, around all of it.
    """

    def work(run: Stepwise) -> None:
        stops = _Stops(run.wait, frozenset(before), frozenset(behind), hold or {})
        with torch.inference_mode(), around or nullcontext(), stops:
            model(*example[0], **example[1])

    return Stepwise(work)
