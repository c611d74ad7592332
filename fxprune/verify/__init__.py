"""Verification of a result against its masked original."""

from fxprune.verify.record import Verification
from fxprune.verify.verify import check

__all__ = ["Verification", "check"]
