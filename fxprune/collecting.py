"""Put off garbage collection while much is made and nothing thrown away."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """No collection inside: a pass makes tens of thousands of small objects that all live, and every full collection in
    between would visit them, and all of the user's, for nothing (half of the time of a small net)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
