"""Puts this folder on the path, so that tests in folders below can import ``reference``."""

import shutil

import pytest
import torch

from fxprune.rules.bugs import raise_bugs

torch.set_num_threads(1)
# A rule that fails is frozen and reported where users are; here it is an error.
raise_bugs()


@pytest.fixture(scope="session")
def compiler():
    """What ``torch.compile`` needs on a CPU."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
