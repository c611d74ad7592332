"""What a residual branch is worth: the criteria of channels on what it puts out, the norm of its weights, or how much
it turns what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.capturing import untouched_rng
from fxprune.capture.follower import Follower
from fxprune.capture.structure import isolated_copy
from fxprune.errors import InputError
from fxprune.ir.branches import Branch
from fxprune.ir.groups import CONSUMER, CouplingGroup, Member
from fxprune.ir.tape import Call, Tape, refs
from fxprune.planning.batches import SAMPLES, Data, Loss
from fxprune.planning.criteria import CRITERIA, Criterion, name_of, resolve
from fxprune.planning.input_statistics import running
from fxprune.planning.scoring import as_data, check_model, checked_tensors, raw_scores
from fxprune.planning.statistics import as_captured
from fxprune.planning.vote import vote as voted

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

DEPTH_WISE, COSINE = "depth_wise", "cosine"


def score_branches(coupling: "Coupling", model: nn.Module, criterion: str | Criterion = "l2", data: Any = None, *,
                   loss: Loss | None = None, samples: int | None = SAMPLES) -> dict[str, float]:
    """What a criterion says of every residual branch that may go whole: branch -> a score, higher is more important.

    Args:
        coupling: `fxprune.analyze` of this model.
        model: it is only read.
        criterion: ``"depth_wise"``: √Σw² over all weights of the branch (the depth-wise term of Wen et al., "Learning
            Structured Sparsity in Deep Neural Networks", NIPS 2016, equation 4); ``"cosine"``: 1 − E[cos(t, t + f(t))]
            over positions, each a vector of channels (the Block Influence of Men et al., "ShortGPT", 2024, equation 1;
            it reads data); or one of `fxprune.criteria`, an object likewise: its scores of the channels of the branch's
            last layer, voted jointly and summed.
        data, loss, samples: as for `fxprune.score`.

    Raises:
        InputError: another model, no such criterion, one that says nothing of a branch, or no data for one that reads
            some.

    >>> from fxprune import analyze
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.stem, self.a, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         x = self.stem(x)
    ...         return self.head(x + self.a(x))
    >>> net = Net()
    >>> list(score_branches(analyze(net, torch.zeros(1, 3)), net, "depth_wise"))
    ['a']
    """
    check_model(coupling, model, "score_branches")
    if isinstance(criterion, str) and criterion not in CRITERIA and criterion not in (DEPTH_WISE, COSINE):
        known = ", ".join(map(repr, (DEPTH_WISE, COSINE, *sorted(CRITERIA))))
        raise InputError(f"the criterion of branches must be one of {known}, or an object, got {criterion!r}")
    branches = coupling.branches
    if criterion == DEPTH_WISE:
        tensors = checked_tensors(model)
        return {name: _norm(branch, tensors, model) for name, branch in branches.items()}
    found = as_data(data, loss, samples)
    if criterion == COSINE:
        return _turned(coupling, model, found)
    return _by_channels(coupling, model, resolve(criterion), found)


def _norm(branch: Branch, tensors: Mapping[str, Tensor], model: nn.Module) -> float:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    own = {id(tensors[name]): tensors[name] for name in branch.tensors if name in parameters}
    return float(sum(t.double().abs().square().sum() for t in own.values())) ** 0.5


def _by_channels(coupling: "Coupling", model: nn.Module, criterion: Criterion, data: Data | None) -> dict[str, float]:
    groups = {name: _put_out(coupling, branch) for name, branch in coupling.branches.items()}
    known = {name: group for name, group in groups.items() if group.members}
    scores = raw_scores(coupling, model, known, criterion, data) if known else {}
    silent = [name for name in groups if name not in scores]
    if silent:
        raise InputError(f"criterion {name_of(criterion)!r} says nothing of the branch {silent[0]!r} by itself (it "
                         "looks at the layers that read a channel, whichever branch it comes from); pass "
                         f"depth_criterion={DEPTH_WISE!r}, {COSINE!r} (with data) or 'l2'")
    return {name: float(voted(rows, "joint").sum()) for name, rows in scores.items()}


def _put_out(coupling: "Coupling", branch: Branch) -> CouplingGroup:
    """The channels of the branch's stream, as they lie in its own last layer."""
    members: list[Member] = []
    size = 0
    for name in branch.stream:
        group = coupling.groups[name]
        members += [Member(m.name, m.dim, m.role, m.channel + size, m.index) for m in group.members
                    if m.name in branch.ends and m.role != CONSUMER]
        size += group.size
    gates = frozenset(gate for name in branch.stream for gate in coupling.groups[name].gates)
    return CouplingGroup(branch.name, size, tuple(members), gates=gates)


@dataclass
class _Angles:
    """Σ cos(t, t + f(t)), and over how many positions."""

    total: float = 0.0
    positions: int = 0

    def add(self, before: Tensor, after: Tensor, dim: int) -> None:
        cosines = torch.cosine_similarity(before.double(), after.double(), dim=dim)
        self.total += float(cosines.sum())
        self.positions += cosines.numel()


@dataclass
class _Sum:
    """Where a branch is added: the operand that it is, and the dimension of channels."""

    operand: int
    dim: int
    angles: _Angles = field(default_factory=_Angles)


class _Watching(Follower):
    """Compares both sides of every sum while the model runs."""

    def __init__(self, tape: Tape, sums: Mapping[str, _Sum]):
        super().__init__(tape)
        self.sums = sums

    def handle(self, call: Call | None, func: Any, args: Any, kwargs: Any) -> Any:
        at = None if call is None else self.sums.get(call.node)
        if at is None:
            return func(*args, **kwargs)
        before = args[1 - at.operand].clone()  # which the sum may be written into
        out = func(*args, **kwargs)
        at.angles.add(before, out, at.dim)
        return out


def _turned(coupling: "Coupling", model: nn.Module, data: Data | None) -> dict[str, float]:
    if data is None:
        raise InputError(f"the criterion {COSINE!r} reads data, and none was given; pass data=batches (a few hundred "
                         f"inputs, labels are not needed), or take {DEPTH_WISE!r}")
    tape = coupling.evidence.tapes[0]
    outs = {call.node: next(refs(call.outs)) for call in tape.calls if any(True for _ in refs(call.outs))}
    sums = {name: _Sum(branch.dropped[0].operand, _channels(coupling, outs[branch.dropped[0].sum].id))
            for name, branch in coupling.branches.items()}
    watched = {branch.dropped[0].sum: sums[name] for name, branch in coupling.branches.items()}
    with untouched_rng(), torch.inference_mode(False), torch.no_grad(), as_captured(coupling):
        copied = isolated_copy(model).eval()
        for number, batch in enumerate(data.batches(model, coupling.inputs, "branches")):
            args, kwargs = batch.example

            def run(args: Any = args, kwargs: Any = kwargs) -> None:
                with torch.inference_mode(), _Watching(tape, watched):
                    copied(*args, **kwargs)

            running(run, number)
    # Rounding may turn an angle of 0 the wrong way.
    return {name: max(0.0, 1 - at.angles.total / max(at.angles.positions, 1)) for name, at in sums.items()}


def _channels(coupling: "Coupling", number: int) -> int:
    """The dimension in which a tensor's channels lie; the last where none is free."""
    vectors = coupling.evidence.dims[0][number]
    return next((dim for dim, vector in enumerate(vectors) if (np.asarray(vector) >= 0).any()), len(vectors) - 1)
