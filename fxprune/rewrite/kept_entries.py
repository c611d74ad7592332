"""Which of the original's inputs and outputs are still there: index by index, for any cut contraction."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fxprune.capture.contractions import Contraction, strided_like


class KeptEntries:
    """Takes what the cut contraction still puts out from what the original's puts out, and knows what it still reads.

    The entries of the cut weight are numbered, and laid where the plan takes them from; both weights as matrices then
    say which group and output of the original each output of the cut one is. So it holds for groups that went whole,
    for transposed convolutions and slices of packed projections alike.

    Args:
        original, cut: the parameter before and after.
        keep: dimension -> kept indices in their new order.
        before, after: the contraction in both networks.
    """

    def __init__(self, original: Tensor, cut: Tensor, keep: Mapping[int, Any], before: Contraction, after: Contraction):
        numbers = torch.arange(cut.numel()).view(cut.shape)
        there, here = (strided_like(t, torch.int64).fill_(-1) for t in (original, cut))
        index = [torch.as_tensor(keep.get(dim, range(n))) for dim, n in enumerate(original.shape)]
        there[torch.meshgrid(*index, indexing="ij")] = numbers
        here.copy_(numbers)
        full = before.matrix(before.within(original, there))
        small = after.matrix(after.within(cut, here))
        place = torch.full((cut.numel(),), -1)
        place[full[full >= 0]] = (full >= 0).reshape(-1).nonzero()[:, 0]
        groups, inputs, outputs = full.shape
        first, row = place[small[:, 0]], place[small[:, :, 0]]
        self.group, self.output = first // (inputs * outputs), first % outputs
        self.input = row // outputs % inputs
        self.inputs = inputs

    @property
    def groups(self) -> Tensor:
        """The original's group of each group that is left, int64 [g′]."""
        return self.group[:, 0]

    @property
    def read(self) -> Tensor:
        """Which of the original's inputs are still read, bool [g′, i]."""
        mask = torch.zeros(len(self.input), self.inputs, dtype=torch.bool)
        return mask.scatter_(1, self.input, True)

    def matrix(self, weight: Tensor) -> Tensor:
        """The original's weight [g, i, o] at the outputs that are left, all inputs: [g′, i, o′]."""
        return weight[self.group.to(weight.device), :, self.output.to(weight.device)].transpose(1, 2)

    def __call__(self, outputs: Tensor) -> Tensor:
        """[g, n, o] of the original -> [g′, n, o′] of the cut one."""
        return outputs[self.group.to(outputs.device), :, self.output.to(outputs.device)].transpose(1, 2)
