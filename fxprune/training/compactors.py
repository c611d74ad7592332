"""ResRep (Ding et al., "ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting", ICCV 2021): layers go
on remembering, and a compactor behind each learns which channels to forget.

A compactor is a 1 × 1 convolution Q, the identity at first, behind a producer of channels and its batch norm. Of the
layers' gradients nothing changes. A compactor's row i becomes, with m_i = 0 for channels that are to be forgotten,

    ∂L/∂Q_i  ←  m_i · ∂L/∂Q_i  +  λ Q_i / ‖Q_i‖

so that nothing resists where a channel goes. In the end compactors are merged: W′ = Q · diag(γ/σ) · W, and the batch
norm becomes an identity with the bias β′ = Q (β + γ/σ (b − μ)). Coupled producers each have a compactor; a channel's
norm is that of its rows in all of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.layer_classes import BATCH_NORM, CONVOLUTION
from fxprune.coupling.scales import scale_names, scales_of_voters
from fxprune.errors import InputError
from fxprune.planning.selection import Wanted
from fxprune.training.arguments import check_coupling, number, selected
from fxprune.training.binding import plain_name

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

COMPACTOR = "compactor"
# Rows of a smaller norm are set to zero when compactors are merged.
GONE = 1e-5


class Compactor(nn.Module):
    """Mixes a tensor's channels: y_i = Σ_j Q_ij x_j, within each of ``groups`` blocks, as only those can be merged."""

    def __init__(self, like: Tensor, width: int, dim: int, groups: int):
        super().__init__()
        self.dim, self.groups = dim, groups
        block = width // groups
        eye = torch.eye(block, dtype=like.dtype, device=like.device)
        self.weight = nn.Parameter(eye.repeat(groups, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.mixed(x.movedim(self.dim, 0)).movedim(0, self.dim)

    def mixed(self, x: Tensor) -> Tensor:
        """Q x for channels in the first dimension."""
        return torch.bmm(self.weight, x.reshape(self.groups, self.weight.shape[1], -1)).reshape(x.shape)


class ResRep:
    """Compactors behind the producers of a model's groups.

    Attach them before the optimizer is made; let it take them without weight decay (the paper: momentum 0.99). Then

        loss.backward()
        penalty.add_(model)
        optimizer.step()

    and in the end `merge_`; a plan that is drawn by ``criterion="l2"`` removes what was forgotten.

    Args:
        coupling: `fxprune.analyze` of the model, before anything is attached.
        macs: the share of the MACs that the channels which are not to be forgotten take.
        strength: λ.
        every: updates between two choices of what is to be forgotten (the paper: 200, quoted from memory).
        more: how many channels more may be forgotten after each choice (the paper: 4, quoted from memory).
        groups: as for `fxprune.DWGL`; those with a producer that is no convolution or linear layer are left out.

    Raises:
        InputError: arguments that make no sense, or no group whose producers are layers.

    >>> import fxprune
    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> penalty = ResRep(fxprune.analyze(net, torch.zeros(1, 2)), macs=0.5)
    >>> [tuple(q.shape) for q in penalty.attach_(net)]
    [(1, 4, 4)]
    >>> penalty.merge_(net)
    {'0': 0}
    """

    def __init__(self, coupling: "Coupling", macs: float = 0.5, strength: float = 1e-4, every: int = 200, more: int = 4,
                 groups: Wanted = "auto"):
        check_coupling(coupling)
        self.coupling, self.groups = coupling, selected(coupling.groups, groups)
        self.strength = number("strength", strength, "strength=1e-4")
        if isinstance(macs, bool) or not isinstance(macs, int | float) or not 0 < macs < 1:
            raise InputError(f"macs must be a fraction in (0, 1), got {macs!r}; write macs=0.5")
        for name, value in (("every", every), ("more", more)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be an integer >= 1, got {value!r}; write {name}=4")
        self.macs, self.every, self.more, self.updates = float(macs), every, more, 0
        scales = scales_of_voters(coupling, scale_names(self.groups, coupling.signature))
        self.norms = {_layer(voter): _layer(scale) for voter, scale in scales.items()}
        self.forgotten: dict[str, np.ndarray] = {}
        self._handles: list[Any] = []

    def attach_(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the compactors into the model, in place; their parameters.

        Raises:
            InputError: no group's producers are all layers, or there are compactors already.
        """
        layers = _layers(model)
        if any(isinstance(layer, Compactor) for layer in layers.values()):
            raise InputError("compactors are attached once, and the model has some; merge_ them first")
        shared = _shared(model)
        self.groups = {name: group for name, group in self.groups.items()
                       if all(_mixable(layers.get(_layer(voter.name)), shared) for voter in group.voters)}
        if not self.groups:
            raise InputError("every producer of a group must be a convolution or a linear layer for a compactor behind "
                             "it, and no group is like that; name others with groups=")
        for name in self.layers:
            layer, place = layers[name], self._place(layers, name)
            dim = 1 if place is not layer else 1 - layer.weight.dim()
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            place.add_module(COMPACTOR, Compactor(layer.weight, width, dim, getattr(layer, "groups", 1)))
            self._handles.append(place.register_forward_hook(_compacted))
        return [self._compactor(layers, name).weight for name in self.layers]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have a compactor, or their batch norms do."""
        return tuple(dict.fromkeys(_layer(voter.name) for group in self.groups.values() for voter in group.voters))

    def _place(self, layers: Mapping[str, Any], name: str) -> Any:
        """What the compactor of a layer stands behind."""
        norm = layers.get(self.norms.get(name, ""))
        fixed = isinstance(norm, BATCH_NORM) and norm.affine and norm.running_mean is not None
        return norm if fixed else layers[name]

    def _compactor(self, layers: Mapping[str, Any], name: str) -> Compactor:
        found: Compactor = getattr(self._place(layers, name), COMPACTOR)
        return found

    def norms_of(self, model: nn.Module) -> dict[str, np.ndarray]:
        """‖Q_i‖ of every channel over all of its compactors, by group: float64 [channels]."""
        layers = _layers(model)
        found = {}
        for name, group in self.groups.items():
            squares = np.zeros(group.size)
            for voter in group.voters:
                q = self._compactor(layers, _layer(voter.name)).weight.detach().double()
                rows = q.square().sum(2).reshape(-1).cpu().numpy()
                squares += np.bincount(voter.channel, rows[voter.index], group.size)
            found[name] = np.sqrt(squares)
        return found

    @torch.no_grad()
    def add_(self, model: nn.Module) -> None:
        """Between ``backward()`` and ``step()``: the rule above, on the compactors' gradients."""
        norms, layers = self.norms_of(model), _layers(model)
        if self.updates % self.every == 0:
            self.forgotten = self.chosen(norms, self.more * (self.updates // self.every))
        self.updates += 1
        for name, group in self.groups.items():
            factor = self.strength / np.maximum(norms[name], 1e-30)
            for voter in group.voters:
                q = self._compactor(layers, _layer(voter.name)).weight
                if q.grad is None:
                    continue
                rows, pull = q.grad.view(-1, q.shape[2]), q.view(-1, q.shape[2])
                index = torch.from_numpy(voter.index).to(q.device)
                kept = torch.from_numpy(~self.forgotten[name][voter.channel]).to(q).unsqueeze(1)
                scale = torch.from_numpy(factor[voter.channel]).to(q).unsqueeze(1)
                rows[index] = rows[index] * kept + scale * pull[index]

    def chosen(self, norms: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
        """The channels of least norm, until the others take no more than ``macs``, but ``most`` at most: bool by group.
        Each group keeps one."""
        groups, costs = self.coupling.costs.groups, self.coupling.costs
        gone = {name: np.zeros(len(norm), bool) for name, norm in norms.items()}
        widths, limit = self.coupling.widths.copy(), self.macs * costs.macs(self.coupling.widths)
        order = sorted((norm, name, k) for name, row in norms.items() for k, norm in enumerate(row.tolist()))
        for _, name, k in order:
            place = groups.index(name)
            if not most or costs.macs(widths) <= limit:
                break
            if widths[place] > 1:
                gone[name][k], widths[place], most = True, widths[place] - 1, most - 1
        return gone

    @torch.no_grad()
    def merge_(self, model: nn.Module) -> dict[str, int]:
        """Merge the compactors into their layers, in place: the same function in eval mode. How many channels of each
        group are gone: their rows, below ``GONE``, are zero."""
        layers, norms = _layers(model), self.norms_of(model)
        for name, group in self.groups.items():
            for voter in group.voters:
                q = self._compactor(layers, _layer(voter.name)).weight
                gone = voter.index[norms[name][voter.channel] < GONE]
                q.view(-1, q.shape[2])[torch.from_numpy(gone).to(q.device)] = 0
        for name in self.layers:
            layer, place = layers[name], self._place(layers, name)
            _merge(layer, None if place is layer else place, self._compactor(layers, name))
            delattr(place, COMPACTOR)
        while self._handles:
            self._handles.pop().remove()
        return {name: int((norm < GONE).sum()) for name, norm in norms.items()}

    def state_dict(self) -> dict[str, Any]:
        """What changes while training, beside the model."""
        return {"updates": self.updates, "forgotten": {name: gone.tolist() for name, gone in self.forgotten.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.updates = int(state["updates"])
        self.forgotten = {name: np.array(gone, bool) for name, gone in state["forgotten"].items()}


def _compacted(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """The hook; of a copy whose compactors are merged nothing changes."""
    compactor = getattr(module, COMPACTOR, None)
    return output if compactor is None else compactor(output)


def _layers(model: nn.Module) -> dict[str, Any]:
    return {plain_name(name): layer for name, layer in model.named_modules(remove_duplicate=False)}


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _shared(model: nn.Module) -> set[int]:
    """Parameters that go by several names, by identity."""
    ids = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    return {one for one in ids if ids.count(one) > 1}


def _mixable(layer: Any, shared: set[int]) -> bool:
    """Whether what a compactor does to a layer's result can be done by the layer."""
    if not isinstance(layer, (nn.Linear, CONVOLUTION)) or id(layer.weight) in shared:
        return False
    return not getattr(layer, "transposed", False) or getattr(layer, "groups", 1) == 1


def _merge(layer: Any, norm: Any, compactor: Compactor) -> None:
    out = 1 if getattr(layer, "transposed", False) else 0
    rows = layer.weight.movedim(out, 0).clone()
    bias = rows.new_zeros(len(rows)) if layer.bias is None else layer.bias.clone()
    if norm is not None:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        rows, bias = rows * scale.view(-1, *[1] * (rows.dim() - 1)), norm.bias + scale * (bias - norm.running_mean)
    layer.weight.copy_(compactor.mixed(rows.contiguous()).movedim(0, out))
    bias = compactor.mixed(bias.unsqueeze(1)).squeeze(1)
    if norm is None and layer.bias is not None:
        layer.bias.copy_(bias)
    if norm is None:
        return
    if layer.bias is not None:
        layer.bias.zero_()
    left = compactor.weight.reshape(len(rows), -1).any(1)
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.copy_(left * (1 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)
