"""The part of a tensor that a plan keeps."""

import numpy as np
import torch

from fxprune.ir.masks import fitted, selected


def indices(mask: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """The true positions of a mask, where ``like`` lies."""
    return torch.from_numpy(mask.nonzero()[0]).to(like.device)


def kept_part(tensor: torch.Tensor, masks: list[np.ndarray]) -> torch.Tensor:
    """The kept indices of every dimension; positions and batch keep the sizes of this run."""
    if tensor.is_conj():
        tensor = tensor.conj_physical()
    for dim, mask in enumerate(masks):
        if not mask.all():
            tensor = selected(tensor, dim, indices(fitted(mask, tensor.shape[dim]), tensor))
    return tensor
