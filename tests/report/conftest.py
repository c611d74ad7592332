"""What the tests of several pictures share."""

import sys

import pytest


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As if it were not installed."""
    for name in {"matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))}:
        monkeypatch.setitem(sys.modules, name, None)
