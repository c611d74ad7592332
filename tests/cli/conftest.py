"""A busy machine must not make commands say that they take long."""

import pytest

from fxprune.cli import stages


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(stages, "DELAY", 10_000.0)
