"""Random numbers that Python draws: they leave no trace in a graph, and the user's generators stay as they were."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from fxprune.errors import CaptureError

T = TypeVar("T")


@contextmanager
def untouched_rng() -> Iterator[None]:
    """Leave every generator as it was found; one that nobody has drawn from is not touched at all, so that what other
    threads draw meanwhile is drawn once."""
    before, cpu = _states(), torch.get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices, enabled=bool(devices)):
        try:
            yield
        finally:
            for name, state in _states().items():
                if state != before[name]:
                    _RESTORE[name](before[name])
            if not torch.equal(cpu, torch.get_rng_state()):
                torch.set_rng_state(cpu)


def undrawn(run: Callable[[], T]) -> T:
    """What ``run`` gives, where it draws nothing with Python's or numpy's generator.

    Raises:
        CaptureError: it does, twice: once may have been another thread.
    """
    for _ in range(2):
        before = _states()
        out = run()
        drawn = [name for name, state in _states().items() if state != before[name]]
        if not drawn:
            return out
    raise CaptureError(f"the model draws numbers with {' and '.join(drawn)}, and a graph would use those of one draw "
                       "for good; draw them with torch, which stays random in a graph")


def _states() -> dict[str, Any]:
    state: Any = np.random.get_state(legacy=False)
    inner = state["state"]
    return {"Python's random": random.getstate(),
            "numpy.random": {**state, "state": {**inner, "key": inner["key"].tolist()}}}


_RESTORE: dict[str, Callable[[Any], None]] = {"Python's random": random.setstate, "numpy.random": np.random.set_state}
