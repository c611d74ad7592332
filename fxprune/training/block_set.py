"""The blocks of a penalty, on whatever model they are asked for: norms, coefficients, distances to zero."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.training.binding import Binding
from fxprune.training.blocks import Layout, key_of, planes_of
from fxprune.training.sharding import together
from fxprune.training.terms import Term

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


class BlockSet:
    """Terms over a coupling's groups; no model is kept.

    Args:
        coupling: the model's.
        groups: those that are penalised.
        voters: the voters' own terms.
        terms: the penalised ones.
        coefficients: float64 [blocks], c_b before balancing, in the order of the terms.
    """

    def __init__(self, coupling: "Coupling", groups: Mapping[str, CouplingGroup], voters: Sequence[Term],
                 terms: Sequence[Term], coefficients: np.ndarray):
        shapes = {name: shape for name, shape, _ in coupling.signature.entries}
        self.signature, self.groups, self.voters, self.terms = coupling.signature, groups, voters, terms
        # One list of names serves both: the penalty, and the voters' own norms.
        self.names = tuple(dict.fromkeys(p.name for t in (*voters, *terms) for p in t.parts))
        self.balance = [1.0] * len(terms)
        self._coefficients = coefficients
        self._shapes = [shapes[name] for name in self.names]
        self._planes = planes_of(terms, self.names, self._shapes)
        self._bindings: WeakKeyDictionary[nn.Module, Binding] = WeakKeyDictionary()
        self._layouts: dict[tuple[Any, ...], tuple[Layout, Tensor]] = {}

    @property
    def sizes(self) -> list[int]:
        """The number of blocks of each term."""
        return [term.size for term in self.terms]

    def rebalance(self, balance: Sequence[float]) -> None:
        """Another factor for each term's coefficients."""
        self.balance = list(balance)
        self._layouts.clear()

    def parameters(self, model: nn.Module) -> list[Tensor]:
        """The named parameters of this model, in ``names``' order; of a sharded model, its shards."""
        if isinstance(model, nn.Module):  # anything else the binding refuses
            together(model)
        try:
            binding = self._bindings.get(model)
        except TypeError:
            binding = None
        found = None if binding is None else binding.parameters()
        if found is not None and [tuple(t.shape) for t in found] == self._shapes:
            return found
        binding = self._bindings[model] = Binding.of(model, self.signature, self.names)
        found = binding.parameters()
        assert found is not None, "a binding is that of the model as it is"
        return found

    def layout(self, tensors: list[Tensor]) -> tuple[Layout, Tensor]:
        """The blocks in these tensors, and their coefficients."""
        key = key_of(tensors)
        if key not in self._layouts:
            if any(t.is_meta for t in tensors):
                raise InputError("weights must hold values to be penalised, but the model is on the meta device; "
                                 "materialise it first, with model.to_empty(device='cpu') and load_state_dict")
            weights = np.repeat(self.balance, self.sizes) * self._coefficients
            layout = Layout.of(self._planes, len(weights), tensors)
            self._layouts[key] = layout, torch.from_numpy(weights).to(layout.device, layout.dtype)
        return self._layouts[key]

    @torch.no_grad()
    def voters_norms(self, model: nn.Module) -> dict[str, tuple[list[Term], np.ndarray]]:
        """Group -> its voters' terms and their norms, float64 [voters, channels]."""
        tensors = self.parameters(model)
        planes = planes_of(self.voters, self.names, self._shapes)
        layout = Layout.of(planes, sum(t.size for t in self.voters), tensors)
        norms = self._finite(layout.norms(tensors), tensors)
        found: dict[str, tuple[list[Term], list[np.ndarray]]] = {name: ([], []) for name in self.groups}
        for term, row in zip(self.voters, _split(norms, self.voters), strict=True):
            found[term.group][0].append(term)
            found[term.group][1].append(row)
        return {name: (terms, np.stack(rows)) for name, (terms, rows) in found.items() if rows}

    @torch.no_grad()
    def means(self, model: nn.Module) -> list[float]:
        """The mean norm of each term's blocks."""
        tensors = self.parameters(model)
        norms = self._finite(self.layout(tensors)[0].norms(tensors), tensors)
        return [float(part.mean()) for part in _split(norms, self.terms)]

    @torch.no_grad()
    def distances(self, model: nn.Module) -> dict[str, np.ndarray]:
        """Group -> float64 [channels], how far each channel's last voter is from zero, in units of its coefficient."""
        tensors = self.parameters(model)
        layout, coefficients = self.layout(tensors)
        norms = self._finite(layout.norms(tensors), tensors)
        weights = coefficients.double().cpu().numpy()
        each = np.divide(norms, weights, out=np.where(norms > 0, np.inf, 0.0), where=weights > 0)
        found: dict[str, np.ndarray] = {}
        for term, row in zip(self.terms, _split(each, self.terms), strict=True):
            if term.votes:
                found[term.group] = np.maximum(found.get(term.group, row), row)
        return found

    def blocks_of(self, channels: Mapping[str, np.ndarray]) -> list[int]:
        """The blocks of these channels (group -> bool [channels]), in every term of their group."""
        flags = np.concatenate([channels[t.group] for t in self.terms])
        return [int(at) for at in np.flatnonzero(flags)]

    def refuse(self, tensors: Sequence[Tensor]) -> None:
        """
        Raises:
            InputError: always, with the first parameter that is not finite.
        """
        for name, tensor in zip(self.names, tensors, strict=True):
            bad = int((~torch.isfinite(tensor.detach())).sum())
            if bad:
                raise InputError(f"weights must be finite, but {name!r} holds {bad} infinite or NaN values; lower the "
                                 "learning rate, or load a checkpoint that did not diverge")
        raise InputError("the norms of the weights must be finite, but their sum overflows; lower the learning rate")

    def _finite(self, norms: Tensor, tensors: Sequence[Tensor]) -> np.ndarray:
        found = norms.double().cpu().numpy()
        if not np.isfinite(found).all():
            self.refuse(tensors)
        return found


def _split(row: np.ndarray, terms: Sequence[Term]) -> list[np.ndarray]:
    return np.split(row, np.cumsum([term.size for term in terms])[:-1])
