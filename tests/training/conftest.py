"""The residual net of these tests, and its coupling."""

import pytest
import torch
from penalty_nets import residual

from fxprune import analyze


@pytest.fixture
def model():
    return residual()


@pytest.fixture(scope="session")
def coupling():
    return analyze(residual(), torch.zeros(2, 3, 8, 8))
