"""Checkpoints that do not fit into memory: sharded safetensors, scored where they lie and sliced shard by shard."""

from fxprune.shards.few_blocks import BlockProof, verify_shards
from fxprune.shards.mapped_plan import score_shards
from fxprune.shards.streaming import Sliced, apply_shards

__all__ = ["BlockProof", "Sliced", "apply_shards", "score_shards", "verify_shards"]
