"""A random order: the baseline that every criterion has to beat."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fxprune.ir.groups import CouplingGroup


@dataclass(frozen=True)
class Random:
    """Uniform scores in [0, 1), the same for all voters: float64 [voters, size].

    They depend on the seed, the group's name and its size only: not on which groups were scored before, nor on any
    global random state, which is left alone.
    """

    seed: int = 0

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        entropy = hashlib.sha256(f"{self.seed}:{group.name}".encode(errors="surrogatepass")).digest()
        scores = np.random.default_rng(int.from_bytes(entropy, "big")).random(group.size)
        return np.broadcast_to(scores, (len(group.voters), group.size))
