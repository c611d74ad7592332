"""What a model costs, as closed forms of its groups' widths."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Count:
    """A count that follows in closed form from the groups' widths: Σ_t coefficient[t] · Π_{f ∈ terms[t]} length_f,
    with length_f = base[f] + Σ_g multiplicity[f, g] · width_g.

    Used for MACs (one term a contraction) and parameters (one term a parameter).

    Args:
        coefficient: int64 [T].
        terms: int64 [T, K], indices of factors; factor 0 is the constant 1 and pads short terms.
        base: int64 [F], the indices of each factor that no group owns.
        factor, group, multiplicity: int64 [N] each, the sparse matrix in coordinate form.

    >>> one = Count(np.array([9]), np.array([[1, 2]]), np.array([1, 3, 0]), np.array([2]), np.array([0]), np.array([1]))
    >>> one(np.array([16])), one(np.array([8]))
    (432, 216)
    """

    coefficient: np.ndarray
    terms: np.ndarray
    base: np.ndarray
    factor: np.ndarray
    group: np.ndarray
    multiplicity: np.ndarray

    def lengths(self, widths: np.ndarray) -> np.ndarray:
        """The length of every factor at these widths (int64 [G])."""
        lengths: np.ndarray = self.base.copy()
        np.add.at(lengths, self.factor, self.multiplicity * widths[self.group])
        return lengths

    def each(self, widths: np.ndarray) -> np.ndarray:
        """The value of every term."""
        if not len(self.coefficient):
            return self.coefficient
        return np.asarray(self.coefficient * self.lengths(widths)[self.terms].prod(axis=1))

    def __call__(self, widths: np.ndarray) -> int:
        return int(self.each(widths).sum())

    def of(self, terms: Sequence[bool]) -> "Count":
        """Of some of the terms alone."""
        chosen = np.asarray(terms, bool)
        return replace(self, coefficient=self.coefficient[chosen], terms=self.terms[chosen])


@dataclass(frozen=True, eq=False)
class Costs:
    """What the captured graph costs at given widths (an int64 array, one width per group, in ``groups``' order).

    ``macs`` counts the contractions of one forward pass on the example inputs, ``params`` the parameters (not
    buffers) that the graph uses. ``layers`` names the layer of each factor in ``widths``.
    """

    groups: tuple[str, ...]
    macs: Count
    params: Count
    layer_names: tuple[str, ...] = ()
    layer_widths: Count | None = None
    macs_layers: tuple[str, ...] = ()
    params_names: tuple[str, ...] = ()

    def widths(self, widths: np.ndarray) -> dict[str, int]:
        """Output channels of every layer at these widths."""
        if self.layer_widths is None:
            return {}
        return dict(zip(self.layer_names, map(int, self.layer_widths.each(widths)), strict=True))

    def without(self, nodes: Collection[str], tensors: Collection[str]) -> "Costs":
        """The same, without the contractions of these nodes and without these parameters."""
        macs = [node not in nodes for node in self.macs_layers]
        params = [name not in tensors for name in self.params_names]
        layers = [name not in tensors and f"{name}.weight" not in tensors for name in self.layer_names]
        return replace(
            self, macs=self.macs.of(macs), params=self.params.of(params),
            macs_layers=_chosen(self.macs_layers, macs), params_names=_chosen(self.params_names, params),
            layer_names=_chosen(self.layer_names, layers),
            layer_widths=None if self.layer_widths is None else self.layer_widths.of(layers))


def _chosen(names: tuple[str, ...], which: Sequence[bool]) -> tuple[str, ...]:
    return tuple(name for name, stays in zip(names, which, strict=True) if stays)
