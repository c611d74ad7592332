"""Structured probabilistic pruning (Wang et al., "Structured Probabilistic Pruning for Convolutional Neural Network
Acceleration", BMVC 2018, arXiv 1709.06994)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fxprune.errors import InputError
from fxprune.planning.selection import Wanted
from fxprune.training.arguments import number
from fxprune.training.decay.channel_decay import ChannelDecay, Rates
from fxprune.training.decay.incremental import how_many_go, increments

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


class SPP(ChannelDecay):
    """Each channel is there with a probability p of its own, which falls for the weak and recovers for the strong; at 0
    it is gone for good.

    An update: scores h ← decay · h + L1 norm, p ← clip(p − Δ(rank of h), 0, 1) with the increments of
    `fxprune.training.decay.incremental`, and a forward and a backward pass with the channels masked by Bernoulli(p).
    The weights are restored before the optimizer moves them: ``with penalty.masked(model):
    loss(model(x), y).backward()``, then ``optimizer.step()``.

    Args:
        coupling: `fxprune.analyze` of the model.
        channels: the fraction of every group to keep.
        peak: A, the largest step of a probability.
        decay: how much of a score lasts to the next update.
        seed: of the masks.
        groups: as for `fxprune.DWGL`.

    Raises:
        InputError: numbers that make no sense.
    """

    def __init__(self, coupling: "Coupling", channels: float = 0.5, peak: float = 0.05, decay: float = 0.99,
                 seed: int = 0, groups: Wanted = "auto"):
        super().__init__(coupling, groups)
        self.peak = number("peak", peak, "peak=0.05", positive=True)
        self.decay = number("decay", decay, "decay=0.99")
        self.going = how_many_go(self.groups, channels)
        self.probability = {name: np.ones(group.size) for name, group in self.groups.items()}
        self._scores = {name: np.zeros(group.size) for name, group in self.groups.items()}
        self._generator = np.random.default_rng(seed)

    def rates(self, model: nn.Module) -> Rates:
        """
        Raises:
            InputError: always; it decays nothing.
        """
        raise InputError("SPP masks channels while a batch is run, and adds nothing to a loss or to gradients; write "
                         "with penalty.masked(model): loss(model(x), y).backward()")

    @contextmanager
    def masked(self, model: nn.Module) -> Iterator[dict[str, np.ndarray]]:
        """The model with a draw of its channels; gives which are there. Its weights are as before afterwards."""
        tensors = self._blocks.parameters(model)  # of a sharded model, its shards: what `_advance` is to see
        self._advance(model)
        there = {name: self._generator.random(len(p)) < p for name, p in self.probability.items()}
        layout, _ = self._blocks.layout(tensors)
        kept = [tensor.detach().clone() for tensor in tensors]
        factors = np.concatenate([there[term.group].astype(np.float64) for term in self._blocks.terms])
        with torch.no_grad():
            layout.multiply_(tensors, torch.from_numpy(factors).to(layout.device, layout.dtype))
        try:
            yield there
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, kept, strict=True):
                    tensor.copy_(value)

    def _advance(self, model: nn.Module) -> None:
        for name, row in self.magnitudes(model).items():
            self._scores[name] = self.decay * self._scores[name] + row
            gone = self.probability[name] == 0
            left = self.going[name] - int(gone.sum())
            order = np.argsort(self._scores[name], kind="stable")
            order = order[~gone[order]]
            if left > 0:
                moved = self.probability[name][order] - increments(len(order), left, self.peak)
                # No more may go for good than are to go.
                floor = np.where(np.arange(len(order)) < left, 0.0, np.finfo(float).tiny)
                self.probability[name][order] = np.clip(moved, floor, 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"probability": {name: row.tolist() for name, row in self.probability.items()},
                "scores": {name: row.tolist() for name, row in self._scores.items()},
                "generator": self._generator.bit_generator.state}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.probability = {name: np.array(row) for name, row in state["probability"].items()}
        self._scores = {name: np.array(row) for name, row in state["scores"].items()}
        self._generator.bit_generator.state = state["generator"]
