"""Order the channels of every group by importance, in all of its members at once: a copy that computes the same.

DWGL presses on channels with high indices. Ordered first, most important first, those are the ones that matter least.
(*Our reconstruction* of how the direction of Zhan et al., BMVC 2019, doi 10.5244/C.33.51, should meet a trained net.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from fxprune.capture.model_walk import aliases, named_tensors, signature_of
from fxprune.capture.structure import deep_copy, isolated_copy
from fxprune.coupling.permutable import permutable
from fxprune.errors import FxpruneError, InputError, VerificationError, unknown
from fxprune.ir.comparison import difference
from fxprune.ir.example_inputs import realise
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.trees import tensors_in
from fxprune.planning.activations import mean_activations
from fxprune.planning.composition import compose
from fxprune.planning.scoring import score_groups
from fxprune.planning.vote import joint
from fxprune.rewrite.attachment import attach_to

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

BY = ("activation", "bn_scale", "l1", "l2")
# Relative to the largest output: in double precision, and where rounding to less adds up over the layers.
TOLERANCE, ROUNDED = 1e-6, 1e-3
LARGEST_IN_DOUBLE = 50_000_000


@dataclass(frozen=True, eq=False)
class Permutation:
    """What `order` did.

    Args:
        by: what the channels were ordered by.
        groups: group name -> int64 [size]: the channel that came to each place.
        scores: group name -> float64 [size]: the scores, in the old order.
        left: group name -> why its channels stayed where they were.
    """

    by: str
    groups: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    left: Mapping[str, str]

    def __getitem__(self, group: str) -> np.ndarray:
        if group not in self.groups:
            raise InputError(unknown("ordered group", group, self.groups))
        return self.groups[group]

    def report(self, format: str = "simple") -> str:
        """Per group: how many channels moved, or why none did."""
        rows = [[name, len(p), int((p != np.arange(len(p))).sum()), ""] for name, p in self.groups.items()]
        rows += [[name, "", 0, why] for name, why in self.left.items()]
        return str(tabulate(rows, ("group", "channels", "moved", "left in order because"), tablefmt=format))

    def __repr__(self) -> str:
        return f"Permutation(by={self.by!r}, {len(self.groups)} groups ordered, {len(self.left)} left)"


def order(model: nn.Module, coupling: "Coupling", by: str = "l2", data: Iterable[Any] | None = None,
          ) -> tuple[nn.Module, Permutation]:
    """An ordered copy of the model, and the permutation. The copy computes the same function, and is checked to.

    Args:
        model: it is not changed. The coupling stays valid for the copy.
        coupling: `fxprune.analyze` of this model.
        by: ``"l1"`` or ``"l2"`` norm of the filters, ``"bn_scale"``, or ``"activation"``: mean ``|activation|`` behind
            the group's voters, on ``data``. With several voters: the norm over them.
        data: for ``"activation"``: batches of inputs, or (inputs, labels).

    Raises:
        InputError: another model, an unknown ``by``, no data, weights or activations that are not finite.
        VerificationError: the copy computes something else (a fault of fxprune).

    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> ordered, permutation = order(net, analyze(net, torch.zeros(1, 3)))
    >>> norms = ordered[0].weight.norm(dim=1)
    >>> bool((norms[:-1] >= norms[1:]).all()), permutation
    (True, Permutation(by='l2', 1 groups ordered, 1 left))
    """
    _check(model, coupling, by, data)
    free = {name: group for name, group in coupling.groups.items() if group.frozen is None}
    allowed = permutable(coupling)
    left = {name: str(group.frozen) for name, group in coupling.groups.items() if group.frozen is not None}
    left |= {name: "its channels lie in unlike orders in some tensor" for name in free if name not in allowed}
    free = {name: group for name, group in free.items() if name in allowed}
    scores = _scores(model, coupling, by, data, free)
    # Stable, so that equal channels keep their order.
    permutation = {name: np.argsort(-score, kind="stable") for name, score in scores.items()}
    ordered = deep_copy(model)
    # A record of what the model was made by does not hold for the copy: its indices mean other channels.
    attach_to(ordered, None)
    _permute_(ordered, coupling, permutation)
    _verify(model, ordered, coupling)
    return ordered, Permutation(by, permutation, scores, left)


def _check(model: nn.Module, coupling: "Coupling", by: str, data: Iterable[Any] | None) -> None:
    if not isinstance(model, nn.Module) or not hasattr(coupling, "signature"):
        raise InputError(f"order takes a module and its coupling, got {type(model).__name__} and "
                         f"{type(coupling).__name__}; write fxprune.order(model, fxprune.analyze(model))")
    if not isinstance(by, str) or by not in BY:
        raise InputError(unknown("order", by, BY))
    difference = coupling.signature.difference(signature_of(model))
    if difference:
        words = difference.replace(" here and ", " in the coupling and ").replace(" there", "")
        raise InputError(f"the coupling must come from this model, but {words} in the model; write "
                         "coupling = fxprune.analyze(model)")
    if by == "activation" and data is None:
        raise InputError("by=\"activation\" needs data to run the model on; pass data=loader, or use by=\"l2\"")


def _scores(model: nn.Module, coupling: "Coupling", by: str, data: Iterable[Any] | None,
            groups: Mapping[str, CouplingGroup]) -> dict[str, np.ndarray]:
    if not groups:
        return {}
    if by != "activation" or data is None:
        return score_groups(list(groups.values()), model, by, "joint")
    found = mean_activations(coupling, isolated_copy(model), data, groups)
    silent = [group for name, group in groups.items() if name not in found]
    rest = score_groups(silent, model, "l2", "joint") if silent else {}
    return {name: joint(found[name]) if name in found else rest[name] for name in groups}


@torch.no_grad()
def _permute_(model: nn.Module, coupling: "Coupling", permutation: Mapping[str, np.ndarray]) -> None:
    kept = {name: indices.tolist() for name, indices in permutation.items()}
    takes = compose(coupling.groups, kept, coupling.signature, aliases(model))
    done: set[int] = set()
    for name, tensor in named_tensors(model):
        if id(tensor) in done:
            continue
        done.add(id(tensor))
        values = tensor.detach()
        for dim, indices in takes.get(name, {}).items():
            values = values.index_select(dim, torch.tensor(indices, device=tensor.device))
        if name in takes:
            tensor.detach().copy_(values)


def _verify(model: nn.Module, ordered: nn.Module, coupling: "Coupling") -> None:
    """Both compute the same on random inputs of the example's size, in eval mode."""
    if any(t.is_meta for _, t in named_tensors(model)):
        return
    small = sum(p.numel() for p in model.parameters()) < LARGEST_IN_DOUBLE
    outputs, dtype = _outputs((model, ordered), coupling, torch.float64 if small else None)
    for a, b in zip(*outputs, strict=True):
        error = difference(a.double(), b.double(), least=1.0)
        if not error <= (TOLERANCE if dtype else ROUNDED):
            raise VerificationError(f"the ordered copy must compute the same function, but its output differs by "
                                    f"{error:.3g}; this is a fault of fxprune: please report it, and leave "
                                    "fxprune.order out")


def _outputs(models: Iterable[nn.Module], coupling: "Coupling", dtype: torch.dtype | None,
             ) -> tuple[list[list[torch.Tensor]], torch.dtype | None]:
    """The floating outputs of each model on the same inputs, and the dtype: None, the models' own, where the wide one
    fails (their Python asks for float32)."""
    found = []
    try:
        for model in models:
            copied = isolated_copy(model).eval()
            device = next(copied.parameters()).device
            args, kwargs = realise(coupling.inputs, device, torch.Generator().manual_seed(0), dtype=dtype)
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                result = (copied.to(dtype) if dtype else copied)(*args, **kwargs)
            found.append([t for t in tensors_in(result) if t.is_floating_point()])
    except FxpruneError:
        raise
    except Exception:
        if dtype is None:
            raise
        return _outputs(models, coupling, None)
    return found, dtype
