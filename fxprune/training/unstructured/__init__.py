"""Sparsity without structure, to be trained in front of a structured cut: single weights go, and shapes stay."""

from fxprune.training.unstructured.soft_sharing import SoftSharing
from fxprune.training.unstructured.thresholds import mask_small_weights, settle_masks

__all__ = ["SoftSharing", "mask_small_weights", "settle_masks"]
