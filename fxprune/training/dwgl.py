"""Directed-Weighting Group Lasso: make coupled layers give up the same channels.

Source: Zhan et al., "Directed-Weighting Group Lasso for Eltwise Blocked CNN Pruning" (BMVC 2019, doi
10.5244/C.33.51). Public text is the abstract alone, and what it says is this: before an eltwise node, the layers that
feed it must prune the same filter indices, so that only the intersection of what they give up can go; group lasso lets
each pick indices of its own; DWGL gives filters coefficients that grow with their index, so that the same indices are
driven to zero in all of them.

Everything else here is **our reconstruction**, the formula included:

    L = task + λ · Σ_groups Σ_voters l Σ_i a_i ‖W_{l,i}‖₂,   a_i = a_min + (a_max - a_min) · (i / (n - 1))^p

over the n channels of each group. ``direction=(1, 1)`` is plain group lasso (Yuan & Lin 2006; per filter: Wen et al.
2016). The proximal step of the same penalty, per block,

    W_b ← W_b · max(0, 1 - η λ c_b / ‖W_b‖₂)

is block soft thresholding; unlike a subgradient step it reaches exact zeros.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.coupling.scales import scale_names, scales_of_voters
from fxprune.errors import InputError
from fxprune.training import terms as blocks
from fxprune.training.arguments import check_coupling, checked_schedule, ends, float_parameters, number, selected
from fxprune.training.binding import Binding
from fxprune.training.blocks import Layout, key_of, planes_of
from fxprune.training.group_norms import GroupNorms
from fxprune.training.prices import prices
from fxprune.training.schedules import Constant, Progress, Schedule
from fxprune.training.terms import Term
from fxprune.training.votes import Ballots, Votes

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


class DWGL:
    """The penalty, as a loss term or as a proximal step, with the votes that it leads to.

    Args:
        coupling: ``fxprune.analyze`` of the model; no model is kept.
        strength: λ ≥ 0.
        direction: (a_min, a_max), 0 ≤ a_min ≤ a_max: the coefficients of a group's first and last channel.
        power: p > 0, how steeply the coefficients rise towards the last channels.
        size_weighting: c_b gets a factor √(number of weights in the block), as group lasso has it (Yuan & Lin 2006).
        cost_weighting: ``"macs"`` or ``"params"``: c_b gets a factor, what a channel of its group costs over what one
            costs on average, so that strength goes where a budget is saved (MorphNet, Gordon et al. 2018).
        include_scale: ‖W_b‖² = ‖filter‖² + scale², of the normalisation right behind the voter. *Ours.*
        consumers: besides, Σ_consumers Σ_i a_i ‖W_{:,i}‖₂ over the slices that read the channel (the channel-wise
            term of Wen et al. 2016).
        joint: one norm per channel, over voters, consumers and all scales at once, in place of a norm per voter (the
            group norm of DepGraph's sparse learning, Fang et al. 2023); all voters then reach zero together.
        schedule: `Constant`, `WarmUp`, `Ramp`, or an object like them; λ is multiplied by its factor.
        groups: ``"auto"`` (all that may be pruned), or group names and glob patterns.

    Raises:
        InputError: an argument outside its range, or groups that are unknown or frozen.

    >>> from fxprune import analyze
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> dwgl = DWGL(analyze(model, torch.zeros(1, 3, 8, 8)), strength=0.1, direction=(0, 1))
    >>> expected = 0.1 * (torch.linspace(0, 1, 4) * model[0].weight.flatten(1).norm(dim=1)).sum()
    >>> torch.allclose(dwgl(model), expected)
    True
    >>> for _ in range(100):
    ...     dwgl.proximal_(model, lr=1.0)
    >>> model[0].weight.flatten(1).norm(dim=1).count_nonzero()
    tensor(1)
    """

    def __init__(self, coupling: "Coupling", strength: float = 1e-4, direction: tuple[float, float] = (1.0, 4.0),
                 power: float = 1.0, *, size_weighting: bool = False, cost_weighting: str | None = None,
                 include_scale: bool = False, consumers: bool = False, joint: bool = False,
                 schedule: Schedule | None = None, groups: str | Iterable[str] = "auto"):
        check_coupling(coupling)
        self.coupling = coupling
        self.strength = number("strength", strength, "strength=1e-4")
        self.direction, self.power = ends(direction), number("power", power, "power=1.0", positive=True)
        self.size_weighting, self.include_scale = bool(size_weighting), bool(include_scale)
        self.consumers, self.joint = bool(consumers), bool(joint)
        self.schedule = Constant() if schedule is None else checked_schedule(schedule)
        self.groups = selected(coupling.groups, groups)
        self._prices = prices(coupling, self.groups, cost_weighting)
        self.progress: Progress = self.schedule.start()
        shapes = {name: shape for name, shape, _ in coupling.signature.entries}
        self._voters, self._terms = self._drawn_up(frozenset(shapes), float_parameters(coupling))
        if not self._terms:
            raise InputError("the groups must have weights of floating numbers to be penalised, but their voters are "
                             "buffers or integers; name other groups with groups=")
        # One list of names serves both: the penalty, and the voters' own norms.
        self._names = tuple(dict.fromkeys(p.name for t in (*self._voters, *self._terms) for p in t.parts))
        self._shapes = [shapes[name] for name in self._names]
        self._planes = planes_of(self._terms, self._names, self._shapes)
        self._base = np.concatenate([self._coefficients(term, shapes) for term in self._terms])
        self._balance = [1.0] * len(self._terms)
        self._bindings: WeakKeyDictionary[nn.Module, Binding] = WeakKeyDictionary()
        self._layouts: dict[tuple, tuple[Layout, Tensor]] = {}

    @property
    def penalty(self) -> float:
        """λ as the schedule has it now."""
        return self.strength * self.progress.factor

    def __call__(self, model: nn.Module) -> Tensor:
        """The loss term, a scalar: float64 if any weight is, else float32, under autocast too.

        With gradient accumulation, add it to each micro-batch's loss divided by their number, or to one of them.

        Raises:
            InputError: another model, or one whose structure changed; on a CPU also norms that are not finite.
        """
        tensors = self._parameters(model)
        layout, coefficients = self._layout(tensors)
        with torch.autocast(layout.device.type, enabled=False):
            total = GroupNorms.apply(layout, coefficients, *tensors) * self.penalty
        # Reading a value would make a GPU wait; there, the loss itself shows it.
        if layout.device.type == "cpu" and not math.isfinite(total.item()):
            self._refuse(tensors)
        return total

    @torch.no_grad()
    def proximal_(self, model: nn.Module, lr: float) -> None:
        """Shrink every block by lr · λ · c_b in its norm, to exactly zero if that is all it has; after the update.

        Each block's step is the exact minimiser of ½‖V - W‖² + lr·λ·c_b‖V‖ while blocks do not overlap, that is by
        default. With ``consumers`` or ``joint`` a weight lies in two blocks, and is multiplied by both factors, each
        taken from the norms before the step. Parameters that do not require a gradient are left alone.

        Raises:
            InputError: as above, or a negative ``lr``; nothing is changed then. On a GPU, where looking would make
                it wait, blocks whose norm is not finite are left as they are.
        """
        step = number("lr", lr, "dwgl.proximal_(model, lr)") * self.penalty
        tensors = self._parameters(model)
        layout, coefficients = self._layout(tensors)
        norms = layout.norms(tensors)
        if layout.device.type == "cpu" and not math.isfinite(norms.sum().item()):
            self._refuse(tensors)
        factor = (norms - step * coefficients).clamp_min_(0).div_(norms)
        # 0/0 where a block is zero already; what is not finite on a GPU stays, too.
        layout.multiply_(tensors, factor.nan_to_num_(1.0, 1.0, 1.0))

    def step(self, model: nn.Module | None = None) -> None:
        """One step of the schedule, after each update. `Ramp` needs the model, to count its votes."""
        self.progress = self.schedule.advance(self.progress, lambda threshold: self._kept(model, threshold))

    @torch.no_grad()
    def votes(self, model: nn.Module, threshold: float = 1e-3, min_channels: int = 1) -> Votes:
        """What each voter gives up: the channels in which its norm is below the threshold.

        The norm is the voter's own (with its normalisation's scale, if ``include_scale``), whatever the options say of
        consumers and joint norms. A group that a rule would empty keeps ``min_channels``, and the report says so.

        Raises:
            InputError: another model, norms that are not finite, or a threshold below 0.
        """
        threshold = number("threshold", threshold, "dwgl.votes(model, threshold=1e-3)")
        if isinstance(min_channels, bool) or not isinstance(min_channels, int) or min_channels < 1:
            raise InputError(f"min_channels must be an integer >= 1, got {min_channels!r}; write min_channels=1")
        ballots = {name: Ballots(name, tuple(t.layer for t in terms), norms, threshold, min_channels)
                   for name, (terms, norms) in self._norms(model).items()}
        return Votes(ballots, self.coupling.costs, self.coupling.widths)

    def balance_(self, model: nn.Module) -> None:
        """Let the voters of a group reach zero together: weigh each by its present mean norm. *Our addition.*

        c_b gets a factor m_l / m, with m_l the mean norm of voter l's channels and m the mean of m_l over the voters.
        A proximal step takes the same length from every filter, so that without it a voter with small filters (a
        projection) is at zero long before one with large ones. The factors are part of the state.
        """
        measured = self._norms(model)
        means = {(name, t.layer): float(row.mean()) for name, (terms, norms) in measured.items()
                 for t, row in zip(terms, norms, strict=True)}
        centre = {name: max(float(norms.mean()), 1e-12) for name, (_, norms) in measured.items()}
        self._rebalance([means.get((t.group, t.layer), centre[t.group]) / centre[t.group] if t.voter else 1.0
                         for t in self._terms])

    def state_dict(self) -> dict[str, Any]:
        """All that changes while training, as plain numbers."""
        return {**asdict(self.progress), "balance": list(self._balance)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InputError: it is that of another penalty.
        """
        wanted = {*asdict(self.progress), "balance"}
        if set(state) != wanted or len(state["balance"]) != len(self._terms):
            raise InputError(f"the state must be that of a DWGL over the same {len(self._terms)} terms, with "
                             f"{', '.join(sorted(wanted))}; got {', '.join(map(str, state)) or 'nothing'}")
        self._rebalance([float(b) for b in state["balance"]])
        self.progress = Progress(**{key: state[key] for key in asdict(self.progress)})

    def __repr__(self) -> str:
        return (f"DWGL({len(self.groups)} groups, {len(self._base)} blocks, strength={self.strength:g}, "
                f"direction={self.direction}, power={self.power:g}, schedule={self.schedule})")

    def _drawn_up(self, names: frozenset[str], parameters: frozenset[str]) -> tuple[list[Term], list[Term]]:
        """The voters' terms, and those that are penalised."""
        scales = scale_names(self.groups, names)
        own = scales_of_voters(self.coupling, scales) if self.include_scale else None
        voters = [t for g in self.groups.values() for t in blocks.voter_terms(g, parameters, own)]
        if self.joint:
            return voters, [blocks.joint_term(g, parameters, scales) for g in self.groups.values()]
        if not self.consumers:
            return voters, voters
        return voters, voters + [t for g in self.groups.values() for t in blocks.consumer_terms(g, parameters)]

    def _coefficients(self, term: Term, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
        coefficients = blocks.direction_of(term.size, self.direction, self.power) * self._prices[term.group]
        return coefficients * np.sqrt(blocks.weights_of(term, shapes)) if self.size_weighting else coefficients

    def _rebalance(self, balance: Sequence[float]) -> None:
        self._balance = list(balance)
        self._layouts.clear()

    def _parameters(self, model: nn.Module) -> list[Tensor]:
        """The named parameters of this model, in ``self._names``' order."""
        try:
            binding = self._bindings.get(model)
        except TypeError:
            binding = None
        found = None if binding is None else binding.parameters()
        if found is None or [tuple(t.shape) for t in found] != self._shapes:
            binding = Binding.of(model, self.coupling.signature, self._names)
            self._bindings[model] = binding
            found = binding.parameters()
        return found

    def _layout(self, tensors: list[Tensor]) -> tuple[Layout, Tensor]:
        key = key_of(tensors)
        if key not in self._layouts:
            if any(t.is_meta for t in tensors):
                raise InputError("weights must hold values to be penalised, but the model is on the meta device; "
                                 "materialise it first, with model.to_empty(device='cpu') and load_state_dict")
            weights = np.repeat(self._balance, [t.size for t in self._terms]) * self._base
            layout = Layout.of(self._planes, len(weights), tensors)
            self._layouts[key] = layout, torch.from_numpy(weights).to(layout.device, layout.dtype)
        return self._layouts[key]

    @torch.no_grad()
    def _norms(self, model: nn.Module) -> dict[str, tuple[list[Term], np.ndarray]]:
        """Group -> its voters' terms and their norms, float64 [voters, channels]."""
        tensors = self._parameters(model)
        planes = planes_of(self._voters, self._names, self._shapes)
        layout = Layout.of(planes, sum(t.size for t in self._voters), tensors)
        norms = layout.norms(tensors).double().cpu().numpy()
        if not np.isfinite(norms).all():
            self._refuse(tensors)
        found: dict[str, tuple[list[Term], list[np.ndarray]]] = {name: ([], []) for name in self.groups}
        start = 0
        for term in self._voters:
            found[term.group][0].append(term)
            found[term.group][1].append(norms[start:start + term.size])
            start += term.size
        return {name: (terms, np.stack(rows)) for name, (terms, rows) in found.items() if rows}

    def _kept(self, model: nn.Module | None, threshold: float) -> float:
        if model is None:
            raise InputError(f"{self.schedule!r} counts the votes, and so needs the model; write dwgl.step(model)")
        return self.votes(model, threshold).fraction("intersection")

    def _refuse(self, tensors: list[Tensor]) -> None:
        for name, tensor in zip(self._names, tensors, strict=True):
            bad = int((~torch.isfinite(tensor.detach())).sum())
            if bad:
                raise InputError(f"weights must be finite, but {name!r} holds {bad} infinite or NaN values; lower the "
                                 "learning rate, or load a checkpoint that did not diverge")
        raise InputError("the norms of the weights must be finite, but their sum overflows; lower the learning rate")
