"""What data says of a network, gathered once, in terms of its coupling groups: criteria read it, and know no operators.

Gathered is what a criterion names in ``needs``:

    "inputs"      moments of everything that a weight multiplies
    "pooled"      per sample, the mean of each input over positions
    "gram"        the moments of the rows of every contraction, outputs included (`Moments`)
    "gradients"   per batch, group and member: Σ w·∂L/∂w over each channel's slices
    "curvature"   the diagonal of the Hessian of the loss
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture import multihead
from fxprune.capture.capturing import untouched_rng
from fxprune.capture.contexts import compiling, without_checkpoints
from fxprune.capture.contractions import Contraction, strided_like, weighted
from fxprune.capture.example import taken
from fxprune.capture.model_walk import named_tensors
from fxprune.capture.structure import isolated_copy
from fxprune.ir.example_inputs import Example, Inputs
from fxprune.ir.groups import CouplingGroup, Member
from fxprune.planning.batches import Batch, Data
from fxprune.planning.gradients import curvature, products
from fxprune.planning.input_statistics import Reading, read, running

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

READ = {"inputs", "pooled", "gram"}
SEED = 20193


@dataclass(frozen=True, eq=False)
class Layer:
    """A contraction that reads a group's channels, and what entered it.

    Args:
        name: the weight.
        weight: float64 [g, i, o]; the outputs are rows [g, n, i] @ weight.
        channel: int64 [g, i]: the group's channel that each input is of, -1 for inputs of others.
        reading: what entered.
    """

    name: str
    weight: Tensor
    channel: np.ndarray
    reading: Reading

    def by_channel(self, values: Tensor | np.ndarray, size: int) -> np.ndarray:
        """Σ of ``values`` [g, i] over each channel's inputs: float64 [size]."""
        mine = self.channel >= 0
        return np.bincount(self.channel[mine], weights=np.asarray(values, np.float64)[mine], minlength=size)

    def mean_by_channel(self, values: Tensor | np.ndarray, size: int) -> np.ndarray:
        """The mean of ``values`` [g, i] over each channel's inputs: float64 [size]."""
        return self.by_channel(values, size) / np.maximum(self.by_channel(np.ones(self.channel.shape), size), 1)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What was gathered.

    Args:
        tensors: the model's parameters and buffers, by name.
        readings: what entered each contraction.
        gradients: group name -> Σ w·∂L/∂w, float64 [batches, members, size].
        curvature: parameter's name -> ∂²L/∂w², in its shape.
    """

    tensors: Mapping[str, Tensor]
    readings: tuple[tuple[Contraction, Reading], ...] = ()
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)
    curvature: Mapping[str, Tensor] = field(default_factory=dict)

    def layers(self, group: CouplingGroup) -> list[Layer]:
        """The contractions that read the group's channels; none where nothing that reads them has a statistic."""
        return [self._layer(member, contraction, reading) for member in group.consumers
                for contraction, reading in self.readings if contraction.name == member.name]

    def unread(self, group: CouplingGroup) -> list[str]:
        """Consumers of the group that have no statistic: embeddings, computed weights."""
        known = {contraction.name for contraction, _ in self.readings}
        return [member.name for member in group.consumers if member.name not in known]

    def _layer(self, member: Member, contraction: Contraction, reading: Reading) -> Layer:
        parameter = self.tensors[member.name].detach()
        ids = strided_like(parameter, torch.int64).fill_(-1)
        index, channel = torch.from_numpy(member.index), torch.from_numpy(member.channel)
        shape = [-1 if d == member.dim else 1 for d in range(ids.dim())]
        ids.index_copy_(member.dim, index, channel.view(shape).expand(_with(ids.shape, member.dim, len(index))))
        own = contraction.matrix(contraction.within(parameter, ids))[:, :, 0].numpy()
        weight = contraction.matrix(contraction.within(parameter, parameter)).double().cpu()
        return Layer(member.name, weight, own, reading)


def _with(shape: torch.Size, dim: int, length: int) -> list[int]:
    return [length if d == dim else n for d, n in enumerate(shape)]


def gather(coupling: "Coupling", model: nn.Module, groups: Mapping[str, CouplingGroup], data: Data,
           needs: Collection[str]) -> Statistics:
    """Run the model on the data, and keep what ``needs`` names. The model is copied, and not changed.

    Raises:
        InputError: the data, the loss, or what comes of them.
    """
    generator = torch.Generator().manual_seed(SEED)
    tensors = {name: t.detach() for name, t in named_tensors(model)}
    readings: tuple[tuple[Contraction, Reading], ...] = ()
    gradients: Mapping[str, np.ndarray] = {}
    diagonal: Mapping[str, Tensor] = {}
    with untouched_rng(), torch.inference_mode(False), as_captured(coupling):
        copied = isolated_copy(model).eval()
        if READ & set(needs):
            example, batches = data.ranks.here(lambda: runnable(
                coupling.inputs, copied, data.batches(model, coupling.inputs, "activations")))
            found = weighted(copied, example)
            parts = data.ranks.each(lambda: read(copied, found, batches, needs, generator))
            readings = tuple((c, reading) for c in found.contractions
                             if (reading := sum((part[c.number] for part in parts), Reading())).n)
        with torch.enable_grad():
            if "gradients" in needs:
                rows = data.ranks.each(lambda: products(copied, groups, data.batches(
                    model, coupling.inputs, "gradients"), data.loss, generator))
                gradients = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
            if "curvature" in needs:
                sums = data.ranks.each(lambda: curvature(copied, data.batches(
                    model, coupling.inputs, "curvature"), data.loss, generator))
                count = sum(number for _, number in sums)
                diagonal = {name: torch.stack([part[name] for part, _ in sums]).sum(0) / count for name in sums[0][0]}
    return Statistics(tensors, readings, gradients, diagonal)


@contextmanager
def as_captured(coupling: "Coupling") -> Iterator[None]:
    """The model runs as it was captured: attention written out, nothing recomputed."""
    with multihead.written_out(), without_checkpoints(), compiling(bool(coupling.eager)):
        yield


def runnable(inputs: Inputs, model: nn.Module, batches: Iterable[Batch]) -> tuple[Example, Iterable[Batch]]:
    """Small inputs that the model runs on, and all of the batches: random ones of the described size, on the model's
    device; the first batch, where the model takes none of those.

    Raises:
        InputError: the model does not run on the first batch either.
    """
    waiting, seen = iter(batches), list[Batch]()

    def first(error: Exception) -> Example:
        batch = next(waiting)
        seen.append(batch)
        with torch.no_grad():
            running(lambda: model(*batch.example[0], **batch.example[1]), 0)
        return batch.example

    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    example = taken(model, inputs, torch.Generator().manual_seed(SEED), dtype, first)
    return example, chain(seen, waiting)
