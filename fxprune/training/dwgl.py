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

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.coupling.scales import scale_names, scales_of_voters
from fxprune.errors import BudgetError, InputError
from fxprune.training import terms as blocks
from fxprune.training.arguments import check_coupling, checked_schedule, ends, float_parameters, number, selected
from fxprune.training.block_set import BlockSet
from fxprune.training.group_norms import GroupNorms
from fxprune.training.guidance import Towards, check_reachable, remaining
from fxprune.training.prices import prices
from fxprune.training.schedules import Constant, Progress, Schedule
from fxprune.training.terms import Term
from fxprune.training.votes import Ballots, Votes

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


LOG = logging.getLogger(__name__)


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
        groups: ``"auto"`` (all that may be pruned), or what `fxprune.plan` takes: names, patterns over layers, groups.

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
        voters, terms = self._drawn_up(float_parameters(coupling))
        if not terms:
            raise InputError("the groups must have weights of floating numbers to be penalised, but their voters are "
                             "buffers or integers; name other groups with groups=")
        coefficients = np.concatenate([self._coefficients(term, shapes) for term in terms])
        self._blocks = BlockSet(coupling, self.groups, voters, terms, coefficients)
        self._held: list[int] = []
        self._lr, self._pressed = 1.0, False

    @classmethod
    def towards(cls, coupling: "Coupling", *, macs: float | None = None, params: float | None = None,
                steps: int = 1000, **options: Any) -> "DWGL":
        """A penalty without a strength: after ``steps`` updates all voters have given up what the target asks for.

        Each step shrinks blocks by the distance that is left over the steps that are left (see
        `fxprune.training.guidance`), relative to the mean norm that each voter had at first. Call
        ``dwgl.step(model)`` after every update; `proximal_` before it is welcome and not needed. Once the target is
        reached, nothing is pressed any more, and what was given up is held at zero: train on as long as you like.

        Args:
            macs, params: the fraction to be kept, one of them; half of the MACs where none is given.
            steps: the updates set aside for it. Leave as many for what stays to recover.
            options: of `DWGL`; ``direction=(0, 40 / 3)``, ``power=4``, ``include_scale=True`` and ``cost_weighting``
                by the target's cost where nothing else is said.

        Raises:
            BudgetError: no fraction, or one that cannot be reached.

        >>> from fxprune import analyze
        >>> model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> dwgl = DWGL.towards(analyze(model, torch.zeros(1, 3)), macs=0.5, steps=10)
        >>> for _ in range(10):
        ...     dwgl.step(model)
        >>> dwgl.line.partition(", strength")[0], len(dwgl.votes(model)["0"].kept("intersection"))
        ('target 50.0% of the macs, reached 50.0%', 8)
        """
        if macs is not None and params is not None:
            raise BudgetError(f"macs= or params= must be given, not both, got {macs!r} and {params!r}; drop one")
        cost, until = ("params", params) if params is not None else ("macs", 0.5 if macs is None else macs)
        if {"strength", "schedule"} & set(options):
            raise InputError("DWGL.towards finds strength and schedule itself; write DWGL(coupling, strength=…, "
                             "schedule=…) to set them")
        if options.get("direction", (0.0, 1.0))[0] != 0:
            raise InputError("towards a target a group's first channel must stay, so that direction begins with 0, got "
                             f"{options['direction']!r}; write direction=(0, {options['direction'][1]:g})")
        schedule = Towards(until, steps, cost)
        made = cls(coupling, 1.0, **{"direction": (0.0, 40 / 3), "power": 4.0, "include_scale": True,
                                     "cost_weighting": cost, "schedule": schedule, **options})
        check_reachable(made.groups, coupling.costs, coupling.widths, float(until), cost)
        return made

    def within(self, steps: int) -> "DWGL":
        """Set aside another number of updates than `towards` was given, counted from the first one.

        Raises:
            InputError: the penalty is not one of `towards`, or has made as many steps already.
        """
        if not isinstance(self.schedule, Towards):
            raise InputError(f"within is for a penalty towards a target, and this one has {self.schedule!r}; write "
                             "DWGL.towards(coupling, macs=0.5, steps=…)")
        schedule = replace(self.schedule, steps=steps)
        if steps <= self.progress.steps:
            raise InputError(f"steps must be more than the {self.progress.steps} that were made, got {steps}")
        self.schedule = schedule
        return self

    @property
    def penalty(self) -> float:
        """λ as the schedule has it now; of `towards`, what it is at the latest learning rate."""
        if self.progress.length is not None:
            return self.progress.length / self._lr
        return self.strength * self.progress.factor

    @property
    def line(self) -> str:
        """Target, reached, strength: what a log says of it."""
        until, cost = (getattr(self.schedule, name, None) for name in ("until", "cost"))
        target = "no target" if until is None else f"target {until:.1%} of the {cost or 'macs'}"
        return (f"{target}, reached {self.progress.kept:.1%}, strength {self.penalty:.3g}, step {self.progress.steps}"
                f"{', released' if self.progress.released else ''}")

    def __call__(self, model: nn.Module) -> Tensor:
        """The loss term, a scalar: float64 if any weight is, else float32, under autocast too.

        With gradient accumulation, add it to each micro-batch's loss divided by their number, or to one of them.

        Raises:
            InputError: another model, or one whose structure changed; on a CPU also norms that are not finite.
        """
        tensors = self._blocks.parameters(model)
        layout, coefficients = self._blocks.layout(tensors)
        with torch.autocast(layout.device.type, enabled=False):
            total: Tensor = GroupNorms.apply(layout, coefficients, *tensors) * (self.strength * self.progress.factor)
        # Reading a value would make a GPU wait; there, the loss itself shows it.
        if layout.device.type == "cpu" and not math.isfinite(total.item()):
            self._blocks.refuse(tensors)
        return total

    @torch.no_grad()
    def proximal_(self, model: nn.Module, lr: float) -> None:
        """Shrink every block by lr · λ · c_b in its norm, to exactly zero if that is all it has; after the update.

        Each block's step is the exact minimiser of ½‖V - W‖² + lr·λ·c_b‖V‖ while blocks do not overlap, that is by
        default. With ``consumers`` or ``joint`` a weight lies in two blocks, and is multiplied by both factors, each
        taken from the norms before the step. Parameters that do not require a gradient are left alone.

        Raises:
            InputError: as above, or a negative ``lr``; nothing is changed then. On a GPU, where looking would make
                it wait, and on a sharded model, where ranks would differ, blocks whose norm is not finite are left as
                they are.
        """
        rate = number("lr", lr, "dwgl.proximal_(model, lr)")
        self._lr, self._pressed = rate or self._lr, True
        length = self.progress.length
        step = rate * self.strength * self.progress.factor if length is None else length
        tensors = self._blocks.parameters(model)
        layout, coefficients = self._blocks.layout(tensors)
        norms = layout.norms(tensors, everywhere=False)
        if layout.device.type == "cpu" and layout.shards is None and not math.isfinite(norms.sum().item()):
            self._blocks.refuse(tensors)
        factor = (norms - step * coefficients).clamp_min_(0).div_(norms)
        # 0/0 where a block is zero already; what is not finite on a GPU stays, too.
        factor.nan_to_num_(1.0, 1.0, 1.0)
        if self._held:
            factor[torch.tensor(self._held, device=factor.device)] = 0.0
        layout.multiply_(tensors, factor)

    def step(self, model: nn.Module | None = None) -> None:
        """One step of the schedule, after each update.

        `Ramp` and `towards` need the model, to count its votes; `towards` also makes its proximal step here, where
        `proximal_` was not called.
        """
        before = self.progress
        if before.length is None:
            self.progress = self.schedule.advance(before, _Count(self, model))
            return
        if not self._pressed:
            self.proximal_(self._given(model), self._lr)
        if not before.steps:
            self._blocks.rebalance(self._blocks.means(self._given(model)))
        self._pressed = False
        self.progress = self.schedule.advance(before, _Count(self, model))
        if self.progress.released and not before.released:
            self._close(self._given(model))
        if (self.progress.kept, self.progress.length) != (before.kept, before.length):
            LOG.info(self.line)

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
                   for name, (terms, norms) in self._blocks.voters_norms(model).items()}
        return Votes(ballots, self.coupling.costs, self.coupling.widths)

    def balance_(self, model: nn.Module) -> None:
        """Let the voters of a group reach zero together: weigh each by its present mean norm. *Our addition.*

        c_b gets a factor m_l / m, with m_l the mean norm of voter l's channels and m the mean of m_l over the voters.
        A proximal step takes the same length from every filter, so that without it a voter with small filters (a
        projection) is at zero long before one with large ones. The factors are part of the state.
        """
        measured = self._blocks.voters_norms(model)
        means = {(name, t.layer): float(row.mean()) for name, (terms, norms) in measured.items()
                 for t, row in zip(terms, norms, strict=True)}
        centre = {name: max(float(norms.mean()), 1e-12) for name, (_, norms) in measured.items()}
        self._blocks.rebalance([means.get((t.group, t.layer), centre[t.group]) / centre[t.group] if t.voter else 1.0
                         for t in self._blocks.terms])

    def state_dict(self) -> dict[str, Any]:
        """All that changes while training, as plain numbers."""
        return {**asdict(self.progress), "balance": list(self._blocks.balance), "held": list(self._held)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InputError: it is that of another penalty.
        """
        fields = asdict(self.progress)
        needed = {"steps", "factor", "kept", "balance"}
        if not needed <= set(state) <= {*fields, "balance", "held"} or len(state["balance"]) != len(self._blocks.terms):
            raise InputError(f"the state must be that of a DWGL over the same {len(self._blocks.terms)} terms, with "
                             f"{', '.join(sorted(needed))}; got {', '.join(map(str, state)) or 'nothing'}")
        self._blocks.rebalance([float(b) for b in state["balance"]])
        self._held = [int(block) for block in state.get("held", ())]
        self.progress = Progress(**{key: state.get(key, value) for key, value in fields.items()})

    def __repr__(self) -> str:
        return (f"DWGL({len(self.groups)} groups, {sum(self._blocks.sizes)} blocks, strength={self.strength:g}, "
                f"direction={self.direction}, power={self.power:g}, schedule={self.schedule})")

    def _drawn_up(self, parameters: frozenset[str]) -> tuple[list[Term], list[Term]]:
        """The voters' terms, and those that are penalised."""
        scales = scale_names(self.groups, self.coupling.signature)
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

    def _given(self, model: nn.Module | None) -> nn.Module:
        if model is None:
            raise InputError(f"{self.schedule!r} counts the votes, and so needs the model; write dwgl.step(model)")
        return model

    def _close(self, model: nn.Module) -> None:
        """Bring to zero what the target asks for and is not there yet, after the last update, and hold it there."""
        count = _Count(self, model)
        target = getattr(self.schedule, "until", 1.0), getattr(self.schedule, "cost", "macs")
        distance = count.distance(*target)[1]
        reach = distance if math.isfinite(distance) else 0.0
        found = self._blocks.distances(model)
        self._held = self._blocks.blocks_of({name: row <= reach for name, row in found.items()})
        self.proximal_(model, 0.0)
        self.progress = replace(self.progress, kept=count.distance(*target)[0])


@dataclass(frozen=True)
class _Count:
    """What a schedule may ask of a model's weights."""

    penalty: DWGL
    model: nn.Module | None

    def __call__(self, threshold: float) -> float:
        return self.penalty.votes(self.penalty._given(self.model), threshold).fraction("intersection")

    def distance(self, until: float, cost: str) -> tuple[float, float]:
        found = self.penalty._blocks.distances(self.penalty._given(self.model))
        return remaining(found, self.penalty.coupling.costs, self.penalty.coupling.widths, until, cost)
