"""Put off garbage collection while much is made and nothing thrown away."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# So many objects may pass for old between two full collections: what some compressions of a small net make, and about
# as many as torch itself holds. A result that is thrown away hangs in cycles, and waits for one.
LIMIT = 200_000


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
            _passed.grow_old()
            gc.enable()


@dataclass
class _Passed:
    """What passed for old since the last full collection."""

    objects: int = 0
    collections: int = 0

    def grow_old(self) -> None:
        """The next collection, of the young, would visit all that was made; to call it old only moves lists."""
        collections = gc.get_stats()[-1]["collections"]
        if collections != self.collections:
            self.objects, self.collections = 0, collections
        self.objects += gc.get_count()[0]
        if self.objects > LIMIT:
            gc.collect()
        elif not gc.get_freeze_count():  # what the user froze stays so
            gc.freeze()
            gc.unfreeze()


_passed = _Passed()
