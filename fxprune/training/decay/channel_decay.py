"""What all of them do: ∂L/∂w += λ_k · w for every weight w in a coupled slice of channel k.

A channel's slices are those of its voters, of its consumers and of the normalisations' scales; biases and running
statistics are left out. Between ``loss.backward()`` and ``optimizer.step()``:

    loss.backward()
    penalty.add_(model)
    optimizer.step()

or, as a term of the loss, ½ Σ λ_k ‖W_k‖² with λ held constant: ``(loss + penalty(model)).backward()``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.coupling.scales import scale_names
from fxprune.errors import InputError
from fxprune.planning.scoring import score_groups
from fxprune.planning.selection import Wanted
from fxprune.planning.whole_weights import whole
from fxprune.training.arguments import check_coupling, float_parameters, selected
from fxprune.training.block_set import BlockSet
from fxprune.training.terms import joint_term

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

Rates = Mapping[str, np.ndarray]


class ChannelDecay:
    """A rate of decay for every channel; what is subclassed says how the rates come about.

    Args:
        coupling: `fxprune.analyze` of the model; no model is kept.
        groups: as for `fxprune.DWGL`.

    Raises:
        InputError: groups that are unknown or frozen, or have no weights of floating numbers.
    """

    def __init__(self, coupling: "Coupling", groups: Wanted = "auto"):
        check_coupling(coupling)
        self.coupling, self.groups = coupling, selected(coupling.groups, groups)
        parameters, scales = float_parameters(coupling), scale_names(self.groups, coupling.signature)
        terms = [joint_term(group, parameters, scales) for group in self.groups.values()]
        if not any(term.parts for term in terms):
            raise InputError("the groups must have weights of floating numbers to decay, and have none; name others "
                             "with groups=")
        self._blocks = BlockSet(coupling, self.groups, [], terms, np.ones(sum(term.size for term in terms)))

    def rates(self, model: nn.Module) -> Rates:
        """λ by group: float64 [channels]. Called once for each update, before the weights move."""
        raise NotImplementedError

    def add_(self, model: nn.Module) -> None:
        """Add λ_k · w to the gradients, where there are any; of a sharded model, to those of its shards."""
        for tensor, pull in self._pulls(model):
            if tensor.grad is not None:
                tensor.grad.add_(pull)

    def __call__(self, model: nn.Module) -> Tensor:
        """½ Σ λ_k ‖W_k‖², a scalar whose gradient is that of `add_`."""
        value = torch.stack([whole((tensor * pull).sum()) for tensor, pull in self._pulls(model)]).sum()
        return value - value.detach() / 2

    @torch.no_grad()
    def _pulls(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Parameters, and λ_k · w for each."""
        blocks = self._blocks
        tensors = blocks.parameters(model)  # first of all, since it makes shards of what a forward pass has gathered
        rates = self.rates(model)
        layout, _ = blocks.layout(tensors)
        factors = np.concatenate([rates[term.group] for term in blocks.terms])
        pulls = layout.scaled(tensors, torch.from_numpy(factors).to(layout.device, layout.dtype))
        return [(tensor, pull) for tensor, pull in zip(tensors, pulls, strict=True) if pull is not None]

    def magnitudes(self, model: nn.Module) -> Rates:
        """Σ |w| over the filters that put each channel out, by group: float64 [channels]."""
        return score_groups(list(self.groups.values()), model, "l1")

    def state_dict(self) -> dict[str, Any]:
        """What changes while training, as plain numbers; nothing, unless a subclass says so."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InputError: it is that of another penalty.
        """
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise InputError(f"the state must be that of a {type(self).__name__}, with {', '.join(mine) or 'nothing'}; "
                             f"got {', '.join(state) or 'nothing'}")
        self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to do where nothing changes."""
