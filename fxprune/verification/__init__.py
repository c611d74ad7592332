"""Verification of a result against its masked original."""

from fxprune.verification.validation import check
from fxprune.verification.verdict import Verification

__all__ = ["Verification", "check"]
