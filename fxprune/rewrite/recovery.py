"""Make up for what was cut, from data and without training: the rest of the network learns, layer by layer, to put out
what the original put out.

The cut network and the original run abreast on all batches and wait at every layer (in a file, where they are many).
What a layer reads then is what the recovered layers before it send, and what it should put out is what the original's
does, at the kept channels. Where its result is added to what a shortcut carries, the aim is the original's *sum* less
what the cut shortcut carries by now (He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV
2017, section 3.3, here for any sum): with z = a·y + c the affine chain between the layer and the sum (a batch norm, a
layer scale), the target is y + (shortcut − shortcut′) / a.

    "statistics"      the mean of every layer's outputs is corrected in its bias, and batch norms are re-estimated
                      (cumulatively; Li et al., "EagleEye", ECCV 2020);
    "least_squares"   the weights are solved anew (`fxprune.rewrite.least_squares`), and on without what an activation
                      behind makes equal (`fxprune.rewrite.flat_activations`), then the same;
    "obs"             every layer alone makes up for the inputs that it lost (`fxprune.rewrite.brain_surgeon`), from
                      the original's inputs to its outputs, then the same.

A layer that gets worse on held-out rows stays as it was cut, and so does a batch norm whose outputs' moments do
(`fxprune.rewrite.norm_moments`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.capturing import untouched_rng
from fxprune.capture.contractions import Norm, Weighted, weighted
from fxprune.capture.model_walk import named_tensors
from fxprune.capture.structure import deep_copy, isolated_copy
from fxprune.coupling.coupling import Coupling
from fxprune.errors import InputError, unknown
from fxprune.planning import Plan
from fxprune.planning.batches import Batch, Data
from fxprune.planning.moments import Moments
from fxprune.planning.split_data import Alone
from fxprune.planning.statistics import as_captured, runnable
from fxprune.rewrite.abreast import Abreast, Arrival, NormPair, Pair, norms_of, pairs_of
from fxprune.rewrite.brain_surgeon import take_over
from fxprune.rewrite.kept_entries import KeptEntries
from fxprune.rewrite.layer_moments import HELD, ROWS, Read, Rows, Sample, shown
from fxprune.rewrite.least_squares import RIDGES, Solution, refitted, solve
from fxprune.rewrite.norm_moments import ChannelMoments, distance
from fxprune.rewrite.spill import Spill

# What each takes for a layer's rows.
READ: Mapping[str, Read] = {"statistics": "outputs", "least_squares": "inputs", "obs": "original"}
METHODS = tuple(READ)
SEED = 20192
# Squared error, relative to the squared outputs, that rounding makes.
INTACT = 1e-10
# How often a layer is solved anew for what an activation shows, and by how much less error it must show for it.
ROUNDS, WORTH = 10, 1e-3


@dataclass(frozen=True)
class RecoveredLayer:
    """What recovery did to one layer.

    Args:
        layer: its weight, or a batch norm's running variance, by name.
        before, after: squared error on held-out rows, in units of the outputs' variance; as cut, and as recovered.
            Where an activation behind is flat somewhere, of what can be told behind it. Of a batch norm, how far mean
            and deviation of its outputs are from the original's, squared, in the same units.
        ridge: the one chosen, in units of the Gram matrix's mean eigenvalue; infinite where only the bias moved.
        rows: how many it was fitted on.
        taken: whether it was better, and is in the network now.
    """

    layer: str
    before: float | None = None
    after: float | None = None
    ridge: float | None = None
    rows: int = 0
    taken: bool = True


@dataclass(frozen=True)
class Recovery:
    """What recovery did.

    Args:
        method: one of ``METHODS``.
        samples: how many it read.
        layers: in the order of execution.
        skipped: weight -> why it was left as it was cut.
        tensors: parameter or buffer that changed -> a digest of what it holds now.
    """

    method: str
    samples: int
    layers: tuple[RecoveredLayer, ...]
    skipped: Mapping[str, str]
    tensors: Mapping[str, str]

    def __str__(self) -> str:
        taken = [layer for layer in self.layers if layer.taken and not layer.layer.endswith("running_var")]
        before, after = (np.median([getattr(layer, side) for layer in taken] or [0.0]) for side in ("before", "after"))
        left = sum(not layer.taken for layer in self.layers) + len(self.skipped)
        return (f"recovered ({self.method}, {self.samples:,} samples): {len(taken)} layers, median held-out error "
                f"{before:.3f} -> {after:.3f} of the outputs' variance; {left} left as cut")


def recover(model: nn.Module, small: nn.Module, coupling: Coupling, plan: Plan, data: Data, method: str,
            rows: int = ROWS) -> Recovery:
    """Recover ``small`` in place.

    Args:
        model: the original; it is not changed.
        small: what the plan made of it, fresh.
        data: batches like the example inputs; labels are not read.
        method: one of ``METHODS``.
        rows: that a layer is fitted on, at least; more for wide ones.

    Raises:
        InputError: no such method, or data that does not fit.
    """
    check_method(method)
    mode = small.training
    with untouched_rng(), torch.inference_mode(False), torch.no_grad(), as_captured(coupling):
        copied, small = isolated_copy(model).eval(), small.eval()
        run = _Run(copied, small, plan, method, rows, data.ranks)
        samples = run.over(data.batches(model, coupling.inputs, "recovery"), coupling)
    small.train(mode)
    return Recovery(method, samples, tuple(run.layers), run.skipped,
                    {name: _digest(run.cut[name]) for name in run.changed})


def check_method(method: object) -> None:
    """Raises InputError where there is no such method."""
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(unknown("recovery", method, METHODS))


def laid_in(model: nn.Module, small: nn.Module, plan: Plan, recovery: Recovery) -> nn.Module:
    """A copy of the original that holds, at the kept indices, what recovery made of ``small``: what the cut module is
    the pruned form of.

    Raises:
        InputError: ``small`` holds other values than recovery left in it.
    """
    base = deep_copy(model)
    theirs, mine = dict(named_tensors(base)), dict(named_tensors(small))
    for name, digest in recovery.tensors.items():
        if _digest(mine[name]) != digest:
            raise InputError(f"{name!r} must hold what recovery left in it to be verified, and holds other values; "
                             "verify before training goes on")
        keep = plan.keep.get(name, {})
        index = [torch.as_tensor(keep.get(dim, range(n))) for dim, n in enumerate(theirs[name].shape)]
        with torch.no_grad():
            theirs[name][torch.meshgrid(*index, indexing="ij")] = mine[name].detach()
    return base


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(raw.tobytes()).hexdigest()


class _Run:
    """One recovery, layer by layer."""

    def __init__(self, model: nn.Module, small: nn.Module, plan: Plan, method: str, rows: int, ranks: Alone):
        self.model, self.small, self.plan, self.ranks = model, small, plan, ranks
        self.full, self.cut = dict(named_tensors(model)), dict(named_tensors(small))
        self.ridges = RIDGES if method == "least_squares" else ()
        self.rows = Rows(torch.Generator().manual_seed(SEED), self.cut, rows, READ[method])
        self.layers: list[RecoveredLayer] = []
        self.skipped: dict[str, str] = {}
        self.changed: dict[str, None] = {}
        self.intact: set[int] = set()

    def over(self, batches: Iterable[Batch], coupling: Coupling) -> int:
        """Go through the network once, on all batches; how many samples they hold."""
        example, batches = self.ranks.here(lambda: runnable(coupling.inputs, self.model, batches))
        full = weighted(self.model, example)
        try:
            cut = weighted(self.small, example)
        except Exception as error:
            raise InputError(f"the cut network must run to be recovered, and raised {type(error).__name__}: {error}; "
                             "where an operator takes certain widths only, pass round_to=8, or 16") from error
        pairs = self._alone(pairs_of(full, cut), coupling)
        with closing(Abreast(self.model, self.small, pairs, self._once(full, cut), Spill())) as runs:
            samples = sum(self.ranks.each(lambda: _added(runs, batches)))
            for arrival in runs.arrivals():
                if isinstance(arrival.layer, Pair):
                    self._contraction(arrival, arrival.layer)
                else:
                    self._norm(arrival, arrival.layer)
        return samples

    def _once(self, full: Weighted, cut: Weighted) -> list[NormPair]:
        """The batch norms that may be re-estimated; the others are named."""
        found = norms_of(full, cut)
        known = {pair.after.mean for pair in found}
        self.skipped |= {norm.var: "used more than once: its statistics would have to serve several inputs"
                         for norm in cut.norms if norm.mean not in known}
        return found

    def _alone(self, pairs: list[Pair], coupling: Coupling) -> list[Pair]:
        """Those that may be solved; the others are named."""
        views = [(pair.after.name, pair.after.view) for pair in pairs]
        gone = {name for tensors in self.plan.branches.values() for name in tensors}
        for name in {member.name for group in self.plan.groups for member in coupling.groups[group].consumers} - gone:
            if name not in {pair.after.name for pair in pairs}:
                self.skipped[name] = "no contraction with this weight was seen in both networks"
        for pair, view in zip(pairs, views, strict=True):
            if views.count(view) > 1:
                self.skipped[pair.after.name] = "used more than once: one weight would have to serve two targets"
            elif pair.before.places != pair.after.places:
                self.skipped[pair.after.name] = "applied to each channel alone, of which there are fewer now"
        return [pair for pair in pairs if pair.after.name not in self.skipped]

    def _contraction(self, arrival: Arrival, pair: Pair) -> None:
        after = pair.after
        kept = KeptEntries(self.full[after.name], self.cut[after.name], self.plan.keep.get(after.name, {}),
                           pair.before, after)
        samples: list[Sample] = []
        parts = self.ranks.each(lambda: self.rows.moments(arrival, pair, kept, samples if self.ridges else None))
        fit, held = (reduce(add, side) for side in list(zip(*parts, strict=True))[:2])
        if after.norm is not None and all(same for _, _, same in parts):
            self.intact.add(after.norm.number)
        weight, bias = after.weight(arrival.latest), after.added(arrival.latest)
        groups, _, outputs = after.matrix(weight).shape
        start = weight.new_zeros(groups, outputs) if bias is None else bias.reshape(groups, outputs)
        make = self._taken_over if self.rows.read == "original" else self._solved
        matrix, intercept = after.matrix(weight), bias is not None or after.norm is not None
        if self.rows.read == "outputs":
            matrix, start = weight.new_ones(groups * outputs, 1, 1), start.reshape(-1, 1)
        found = make(pair, kept, fit, held, matrix, start, intercept)
        if found is None:
            return
        if self.ridges and after.flat is not None:
            linear, cut = found, (matrix.double(), start.double())
            found = self._behind(samples, fit, held, cut, intercept, linear)
            if after.norm is not None and found.after < found.before and not torch.equal(found.weight, linear.weight):
                # What lies below a threshold is not what it was, nor are its moments; what lies above is.
                self.intact.add(after.norm.number)
        taken = found.after < found.before
        self.layers.append(RecoveredLayer(after.name, found.before, found.after, found.ridge, fit.n + held.n, taken))
        if not taken:
            return
        if found.ridge != torch.inf:
            self._write(after.name, weight, after.laid_out(found.weight, weight))
        if bias is not None and after.bias is not None:
            self._write(after.bias, bias, found.bias.reshape(bias.shape))
        elif after.norm is not None:
            mean = self.cut[after.norm.mean]
            self._write(after.norm.mean, mean, mean - found.bias.reshape(-1))

    def _solved(self, pair: Pair, kept: KeptEntries, fit: Moments, held: Moments, matrix: Tensor, start: Tensor,
                intercept: bool) -> Solution | None:
        """None where nothing before the layer was cut, so that it puts out what it did."""
        error = sum(float(side.error(matrix.double(), start.double()).sum()) for side in (fit, held))
        if error <= INTACT * float((fit.yy + held.yy).sum()):
            self.intact |= {pair.after.norm.number} if pair.after.norm is not None else set()
            return None
        return solve(fit, held, matrix, start, intercept, self.ridges)

    def _behind(self, samples: list[Sample], fit: Moments, held: Moments, cut: tuple[Tensor, Tensor], intercept: bool,
                found: Solution) -> Solution:
        """Solved on, as long as held-out rows show less error behind the activation."""
        tried = [cut, refitted(fit, *cut, intercept, found.ridge)]
        best, before, after = fit + held, torch.inf, torch.inf
        for _ in range(ROUNDS + 1):
            parts = self.ranks.each(partial(shown, samples, tried))
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return found
            fitted, left_out = (reduce(add, side) for side in zip(*known, strict=True))
            *as_cut, error = left_out.relative().tolist()
            if error > after * (1 - WORTH):
                break
            best, before, after = fit + held, as_cut[0] if as_cut else before, error
            fit, held = fitted.aimed(fit), left_out.aimed(held)
            tried = [refitted(fit, *cut, intercept, found.ridge)]
        return Solution(*refitted(best, *cut, intercept, found.ridge), before, after, found.ridge)

    def _taken_over(self, pair: Pair, kept: KeptEntries, fit: Moments, held: Moments, matrix: Tensor, start: Tensor,
                    intercept: bool) -> Solution | None:
        """None where the layer reads all that it did."""
        if kept.read.all():
            return None
        own = self.full[pair.before.name]
        whole = kept.matrix(pair.before.matrix(pair.before.within(own, own)))
        found = take_over(fit, held, whole, start, kept.read, intercept)
        return replace(found, weight=found.weight.gather(1, kept.input.unsqueeze(2).expand(matrix.shape)))

    def _norm(self, arrival: Arrival, pair: NormPair) -> None:
        """Mean and variance of what reaches it now; taken if held-out samples are then nearer to the original's."""
        norm = pair.after
        if norm.number in self.intact:
            return
        parts = self.ranks.each(lambda: self._reached(arrival, pair))
        fit, held, wanted = (reduce(add, side) for side in zip(*parts, strict=True))
        if min(fit.n, held.n) < 2:
            self.skipped[norm.var] = (f"a variance needs two values a channel to be made from and two held out, and "
                                      f"{fit.n} and {held.n} arrived: pass more samples, or larger batches")
            return
        both = fit + held
        scale = 1.0 if norm.weight is None else self.cut[norm.weight].double()
        bias = 0.0 if norm.bias is None else self.cut[norm.bias].double()
        aim = self._put_out(pair.before, wanted, self.plan.keep.get(norm.mean, {}).get(0))
        before, after = (distance(aim, held.normalised(statistics, norm.eps, scale, bias)) for statistics in (
            (self.cut[norm.mean], self.cut[norm.var]), (fit.mean, fit.variance)))
        if not np.isfinite(after):
            self.skipped[norm.var] = ("what reaches it must be finite, and is not: look for the cause in the weights "
                                      "or in the data")
            return
        self.layers.append(RecoveredLayer(norm.var, before, after, rows=both.n, taken=after < before))
        if after < before:
            self._write(norm.mean, self.cut[norm.mean], both.mean)
            self._write(norm.var, self.cut[norm.var], both.variance)

    def _reached(self, arrival: Arrival, pair: NormPair) -> tuple[ChannelMoments, ChannelMoments, ChannelMoments]:
        """What reaches the cut norm, to fit on and held out, and what reached the original on the samples held out."""
        now, then = self.cut[pair.after.mean], self.full[pair.before.mean]
        parts = [(ChannelMoments.of(here.args[0], now, 0, 1 - HELD), ChannelMoments.of(here.args[0], now, 1 - HELD, 1),
                  ChannelMoments.of(there.args[0], then, 1 - HELD, 1)) for here, there in arrival.stops()]
        fit, held, wanted = (reduce(add, side) for side in zip(*parts, strict=True))
        return fit, held, wanted

    def _put_out(self, norm: Norm, reached: ChannelMoments, kept: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what the original's norm puts out, at the channels that are left."""
        scale = 1.0 if norm.weight is None else self.full[norm.weight].double()
        bias = 0.0 if norm.bias is None else self.full[norm.bias].double()
        out = reached.normalised((self.full[norm.mean], self.full[norm.var]), norm.eps, scale, bias)
        return out if kept is None else (out[0][list(kept)], out[1][list(kept)])

    def _write(self, name: str, place: Tensor, value: Tensor) -> None:
        place.copy_(value.to(place))
        self.changed[name] = None


def _added(runs: Abreast, batches: Iterable[Batch]) -> int:
    """How many samples were added."""
    samples = 0
    for batch in batches:
        runs.add(batch.example)
        samples += batch.size
    return samples
