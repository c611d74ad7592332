"""Nested values as torch sees them: containers that libraries have registered (caches, outputs) count, too."""

from torch.utils._pytree import (
           TreeSpec,
           tree_flatten,
           tree_iter,
           tree_leaves,
           tree_map,
           tree_map_only,
           tree_structure,
           tree_unflatten,
)

__all__ = ["TreeSpec", "tree_flatten", "tree_iter", "tree_leaves", "tree_map", "tree_map_only", "tree_structure",
           "tree_unflatten"]
