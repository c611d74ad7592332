"""At one layer, from all batches: the moments of what it reads and of what it should put out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor

from fxprune.capture.contractions import Contraction, Norm
from fxprune.capture.stepwise import Stop
from fxprune.errors import InputError
from fxprune.planning.input_statistics import sampled
from fxprune.planning.moments import Moments, MomentSums
from fxprune.rewrite.abreast import Arrival, Pair
from fxprune.rewrite.flat_activations import FAINT, Behind, Shown
from fxprune.rewrite.kept_entries import KeptEntries

Read = Literal["inputs", "original", "outputs"]
# Rows that a layer is fitted on, at least; and for every input of it.
ROWS, ROWS_PER_INPUT = 20_000, 8
# The share of each batch's samples whose rows are held out: the last ones.
HELD = 0.2
# Bytes of a layer's rows that are kept for rounds behind an activation; of wider layers none are.
KEPT = 200 << 20


@dataclass(frozen=True, eq=False)
class Sample:
    """Of one batch.

    Args:
        rows, target: what is read, and what should be put out.
        fitted: how many of them are to be fitted on: the first ones.
        behind: what stands between the outputs and an activation that is flat somewhere; None where none does, or where
            it is not all there yet.
    """

    rows: Tensor
    target: Tensor
    fitted: int
    behind: Behind | None

    def split(self, *whole: Tensor) -> list[list[Tensor]]:
        """Of these, [g, n, …], the part to fit on, and the part that is held out."""
        return [[tensor[:, part] for tensor in whole] for part in (slice(self.fitted), slice(self.fitted, None))]


def shown(samples: list[Sample], tried: list[tuple[Tensor, Tensor]]) -> tuple[Shown, Shown] | None:
    """What an activation shows of layers that are tried: on the rows to fit on, and on those held out. None where no
    rows were kept."""
    parts = []
    for sample in samples:
        assert sample.behind is not None, "of these alone rows are kept"
        shift = sample.behind.shift.expand(sample.target.shape)
        parts.append([Shown.of(rows, target, replace(sample.behind, shift=part), tried)
                      for rows, target, part in sample.split(sample.rows, sample.target, shift)])
    return (reduce(add, (fit for fit, _ in parts)), reduce(add, (held for _, held in parts))) if parts else None


@dataclass(frozen=True, eq=False)
class Rows:
    """How rows are drawn.

    Args:
        generator: draws them.
        tensors: the cut network's parameters and buffers, by name.
        rows: how many at a layer, over all batches.
        read: "inputs": rows are the cut network's, and targets the original's outputs and what a shortcut lost;
            "original": rows are the original's, all of its inputs, and targets its own outputs; "outputs": the first
            targets, and each output of the cut layer without its bias is a group, so that all but a bias is settled.
    """

    generator: torch.Generator
    tensors: Mapping[str, Tensor]
    rows: int = ROWS
    read: Read = "inputs"

    def moments(self, arrival: Arrival, pair: Pair, kept: KeptEntries, samples: list[Sample] | None = None
                ) -> tuple[Moments, Moments, bool]:
        """Of the rows to fit on, and of those held out; and whether the original's rows are asked for, and what the
        layer reads in the first batch, all of it still there, is what the original's reads.

        Args:
            samples: gets the rows themselves, where an activation stands behind and they are few enough.

        Raises:
            InputError: values that are not finite.
        """
        fit, held, same = MomentSums(), MomentSums(), self.read == "original" and bool(kept.read.all())
        for number, (here, there) in enumerate(arrival.stops()):
            same = same and (number > 0 or self._same(pair, here, there, kept))
            sample = self._sample(len(arrival.batches), pair, here, there, kept)
            for sums, (rows, target) in zip((fit, held), sample.split(sample.rows, sample.target), strict=True):
                sums.add_(rows, target)
            if samples is not None and sample.behind and sample.rows.nbytes * len(arrival.batches) <= KEPT:
                samples.append(sample)
        if samples and len(samples) < len(arrival.batches):  # sums of some do not go with the Gram matrix of all
            samples.clear()
        both = fit.total(), held.total()
        if not all(torch.isfinite(m.yy).all() and torch.isfinite(m.xx.diagonal(0, 1, 2)).all() for m in both):
            raise InputError(f"what enters and leaves {pair.after.name!r} must be finite, and is not; look "
                             "for the cause in the weights or in the data")
        return *both, same

    def _same(self, pair: Pair, here: Stop, there: Stop, kept: KeptEntries) -> bool:
        picked = sampled(pair.before.positions(there), 64, torch.Generator().manual_seed(0)).to(there.out.device)
        now, then = pair.after.rows(here, picked), pair.before.rows(there, picked)[kept.groups.to(picked.device)]
        order = kept.input.to(picked.device).unsqueeze(1).expand(now.shape)
        return bool((now - then.gather(2, order)).abs().max() <= 1e-5 * then.abs().max())

    def _sample(self, batches: int, pair: Pair, here: Stop, there: Stop, kept: KeptEntries) -> Sample:
        before, after = pair.before, pair.after
        n = before.positions(there)
        wanted = max(self.rows, ROWS_PER_INPUT * after.matrix(after.weight(here)).shape[1])
        picked = sampled(n, max(-(-wanted // batches), 16), self.generator).to(there.out.device)
        target, fitted = kept(before.outputs(there.out, picked)), int((picked < (1 - HELD) * n).sum())
        if self.read == "original":
            return Sample(before.rows(there, picked)[kept.groups.to(target.device)], target, fitted, None)
        summands = self._summands(before, after, here, there)
        if summands is not None:
            target = target + self._lost(before, after, *summands, picked, kept)
        rows = after.rows(here, picked)
        if self.read == "outputs":
            made = rows.double() @ after.matrix(after.weight(here)).double()
            return Sample(_apart(made), _apart(target), fitted, None)
        return Sample(rows, target, fitted, self._behind(after, target, summands, picked))

    def _summands(self, before: Contraction, after: Contraction, here: Stop, there: Stop
                  ) -> tuple[Tensor, Tensor] | None:
        """What the shortcuts carry, in the original and in the cut network, where that is there and goes into the
        sum without broadcasting."""
        if before.other is None or after.other is None:
            return None
        full, cut = there.held.get(before.other), here.held.get(after.other)
        return None if full is None or cut is None or full.shape != there.out.shape else (full, cut)

    def _behind(self, after: Contraction, like: Tensor, summands: tuple[Tensor, Tensor] | None, picked: Tensor
                ) -> Behind | None:
        """What stands between outputs like these and the activation behind."""
        if after.flat is None or (after.other is None) != (summands is None):
            return None
        scale, shift = like.new_ones(1, 1, 1), like.new_zeros(1, 1, 1)
        if after.norm is not None:
            scale, shift = (vector.reshape(len(like), 1, -1) for vector in self._affine(after.norm))
        if summands is not None:
            shift = shift + after.outputs(summands[1], picked)
        return Behind(*after.flat, scale, shift)

    def _lost(self, before: Contraction, after: Contraction, full: Tensor, cut: Tensor, picked: Tensor,
              kept: KeptEntries) -> Tensor | float:
        """What the shortcut has lost by now, in units of the layer's own output; 0 where those are not known."""
        scale = self._scale(after, cut)
        if scale is None:
            return 0.0
        gap = kept(before.outputs(full, picked)) - after.outputs(cut, picked)
        # A channel that hardly reaches the sum cannot make up for anything in it.
        return torch.where(scale.abs() > FAINT, gap / scale, 0.0)

    def _scale(self, after: Contraction, like: Tensor) -> Tensor | None:
        """What the layer's outputs are multiplied by before the sum: [g, 1, o]."""
        dim = after.product.channel_dim(like)
        if dim is None:
            return None
        shape = [like.shape[d] if d == dim else 1 for d in range(like.dim())]
        total = like.new_ones(shape)
        if after.norm is not None:
            total = total * self._affine(after.norm)[0].view(shape)
        for name in after.scales:
            total = total * self.tensors[name]
        if list(total.shape) != shape:
            return None
        return after.outputs(total, torch.zeros(1, dtype=torch.int64, device=like.device))

    def _affine(self, norm: Norm) -> tuple[Tensor, Tensor]:
        """What a batch norm multiplies each channel by, and what it adds."""
        factor = (self.tensors[norm.var] + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = factor * self.tensors[norm.weight]
        shift = -factor * self.tensors[norm.mean]
        return factor, shift if norm.bias is None else shift + self.tensors[norm.bias]


def _apart(values: Tensor) -> Tensor:
    """From [g, n, o] to [g·o, n, 1]."""
    return values.transpose(1, 2).flatten(0, 1).unsqueeze(2)
