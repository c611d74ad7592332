"""Garbage collection: put off inside, and as the user had it outside."""

import gc
import weakref

import pytest

from fxprune.capture import collecting
from fxprune.capture.collecting import collected_later


class Cycle:
    def __init__(self):
        self.itself = self


def made(count):
    return [Cycle() for _ in range(count)]


def test_nothing_is_collected_inside_and_everything_can_be_afterwards():
    with collected_later():
        assert not gc.isenabled()
        gone = weakref.ref(Cycle())
        made(5_000)
        assert gone() is not None
    assert gc.isenabled()
    gc.collect()
    assert gone() is None


def test_what_was_made_is_not_visited_by_the_collection_of_the_young():
    gc.collect()
    with collected_later():
        kept = made(5_000)
    assert gc.get_count()[0] < 5_000 and gc.get_freeze_count() == 0
    assert len(kept) == 5_000


def test_garbage_of_many_passes_is_collected_at_last(monkeypatch):
    monkeypatch.setattr(collecting, "LIMIT", 20_000)
    gc.collect()
    gone = weakref.ref(Cycle())
    for _ in range(5):
        with collected_later():
            made(5_000)
    assert gone() is None


@pytest.mark.parametrize("frozen", [True, False])
def test_what_the_user_froze_or_switched_off_stays_so(frozen):
    gc.freeze() if frozen else gc.disable()
    try:
        count = gc.get_freeze_count()
        with collected_later():
            made(10)
        assert gc.get_freeze_count() == count and gc.isenabled() == frozen
    finally:
        gc.unfreeze()
        gc.enable()


def test_an_error_inside_leaves_it_as_it_was():
    with pytest.raises(ZeroDivisionError), collected_later():
        1 / 0  # noqa: B018
    assert gc.isenabled()
