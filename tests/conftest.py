"""Puts this folder on the path, so that tests in folders below can import ``reference``."""

import shutil

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def compiler():
    """What ``torch.compile`` needs on a CPU."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
