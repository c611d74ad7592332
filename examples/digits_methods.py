"""The other methods of the literature, side by side on scikit-learn's digits: a few minutes on a laptop, no download.

    python examples/digits_methods.py --seeds 0 1 2

Every method trains the same trained net on, for as many epochs; then it is cut to the same share of the MACs by the
L2 norm (SPP by its probabilities; where residual branches are what is pressed, branches and channels go from one list),
and fine-tuned. Without structure, single weights go first, and the cut sees the zeros. NetAdapt and HALP cut in steps,
with a little training in between, HALP to the root of that share, of the measured time.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from digits_dwgl import BATCH, Data, Net, accuracy, digits, fit
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

import fxprune
from fxprune.searching import netadapt
from fxprune.training import DWGL, Ramp
from fxprune.training.compactors import ResRep
from fxprune.training.decay import SPP, AutoBalanced, GReg1, IncReg, SparseLearning
from fxprune.training.stochastic_depth import stochastic_depth
from fxprune.training.structured_sparsity import depth_wise, shape_wise
from fxprune.training.unstructured import SoftSharing, mask_small_weights, settle_masks

Coupling = Any


@dataclass
class Steps:
    """What a method does in a training step; nothing, where it says nothing.

    Args:
        parameters: its own.
        around: entered for each forward and backward pass.
        term: added to the loss.
        gradients: called when gradients are there.
        updated: called with the learning rate when the weights have moved.
        epoch: called after each epoch.
        finish: called at the end, in place.
        criterion: what the cut goes by.
    """

    parameters: list[nn.Parameter] = field(default_factory=list)
    around: Callable[[nn.Module], AbstractContextManager[Any]] = lambda model: nullcontext()
    term: Callable[[nn.Module], Tensor | float] = lambda model: 0.0
    gradients: Callable[[nn.Module], Any] = lambda model: None
    updated: Callable[[nn.Module, float], Any] = lambda model, lr: None
    epoch: Callable[[nn.Module], Any] = lambda model: None
    finish: Callable[[nn.Module], Any] = lambda model: None
    criterion: Any = "l2"


def dwgl(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    """Of ordered channels, since the last ones are pressed most."""
    ordered, _ = fxprune.order(model, coupling)
    model.load_state_dict(ordered.state_dict())
    return proximal(DWGL(coupling, 0.01, direction=(0.0, 8.0), power=2.0, include_scale=True, schedule=ramp(macs)))


def group_lasso(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    """DWGL's mean coefficient for all channels."""
    return proximal(DWGL(coupling, 0.01, direction=(8 / 3, 8 / 3), consumers=True, schedule=ramp(macs)))


def ramp(macs: float) -> Ramp:
    """Stronger every epoch of the digits, until the votes leave the budget."""
    return Ramp(until=macs, rate=0.5, every=21)


def proximal(penalty: DWGL) -> Steps:
    def updated(model: nn.Module, lr: float) -> None:
        penalty.proximal_(model, lr)
        penalty.step(model)

    return Steps(updated=updated)


def shapes(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    return Steps(term=lambda model: 1e-4 * shape_wise(model))


def depths(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    return Steps(term=lambda model: 1e-2 * depth_wise(model, ["blocks.*.three.*"]))


def decays(penalty: Callable[[Coupling], Any], model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    return Steps(gradients=penalty(coupling).add_)


def planned(penalty: Callable[[Coupling, fxprune.Plan], Any], model: nn.Module, coupling: Coupling, macs: float
            ) -> Steps:
    plan = fxprune.plan(coupling, model, macs=macs, criterion="l1")
    return Steps(gradients=penalty(coupling, plan).add_)


def masked(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    """Channels that are hardly there any more were not trained, so that the cut goes by their probabilities."""
    penalty = SPP(coupling, channels=macs ** 0.5)
    return Steps(around=penalty.masked, criterion=lambda group, tensors: penalty.probability[group.name])


def compactors(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    penalty = ResRep(coupling, macs=macs, strength=1e-2, every=10)
    return Steps(penalty.attach_(model), gradients=penalty.add_, finish=penalty.merge_)


def dropped(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    hooks = ExitStack()
    hooks.enter_context(stochastic_depth(model, [f"blocks.{k}.three" for k in range(3)]))
    return Steps(finish=lambda model: hooks.close())


def magnitudes(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    return Steps(epoch=partial(mask_small_weights, quality=0.1), finish=settle_masks)


def shared(model: nn.Module, coupling: Coupling, macs: float) -> Steps:
    """The mixture learns by Adam, as in the paper, at ten times its rates: these are a few hundred steps. It begins
    narrow, with half of it at zero, and weak beside a loss that is a mean over 64 images."""
    mixture = SoftSharing(strength=1e-5, deviation=0.05, at_zero=0.5)
    adam = torch.optim.Adam([{"params": [mixture.means], "lr": 1e-3},
                             {"params": [mixture.log_precisions, mixture.logits], "lr": 3e-2}])

    def moved(model: nn.Module, lr: float) -> None:
        adam.step()
        adam.zero_grad()

    return Steps(term=mixture, updated=moved, finish=mixture.quantise_)


def at_once(model: nn.Module, criterion: Any, train: Data, macs: float, **options: Any) -> nn.Module:
    return fxprune.compress(model.eval(), train[0][:1], macs=macs, criterion=criterion, **options)


def folded(model: nn.Module, criterion: Any, train: Data, macs: float) -> nn.Module:
    """A dead filter still emits its batch norm's shift; that constant goes into the layers that read it."""
    return at_once(model, criterion, train, macs, fold_constants=True, calibration=train[0])


def adapted(model: nn.Module, criterion: Any, train: Data, macs: float) -> nn.Module:
    """What is measured after an epoch of each candidate decides."""
    return netadapt(model.eval(), train[0][:1], lambda small: accuracy(small, train), macs=macs, step=0.2,
                    fit=lambda small: tuned(small, train), criterion=criterion).module


def on_the_clock(model: nn.Module, criterion: Any, train: Data, macs: float, steps: int = 5) -> nn.Module:
    """Taylor scores under a budget of measured time, once more after every step of an exponential schedule. What calls
    cost besides their arithmetic stays, which is half of the time of so small a net: the root of the share is asked."""
    small, batches = model.eval(), list(zip(*(half.split(256) for half in train), strict=True))
    target, whole = fxprune.Target("cpu", threads=1, batch=BATCH, clock="thread"), 0.0
    for share in fxprune.schedule(macs ** 0.5, steps, "exponential"):
        coupling = fxprune.analyze(small, train[0][:1])
        table = fxprune.latency_table(coupling, small, target, step=4)
        whole = whole or table.seconds
        if table.seconds <= share * whole:  # the step before went further
            continue
        plan = fxprune.plan(coupling, small, latency_ms=1000 * share * whole, table=table, criterion="taylor",
                            data=batches, round_to=4)
        small = fxprune.apply(small, plan)
        tuned(small, train)
    return small


def tuned(model: nn.Module, train: Data) -> None:
    fit(model.train(), train, 1, "step", lr=0.02)
    model.eval()


@dataclass(frozen=True)
class Method:
    """What happens between the trained net and the cut, and the cut."""

    source: str
    steps: Callable[[nn.Module, Coupling, float], Steps] = lambda model, coupling, macs: Steps()
    cut: Callable[[nn.Module, Any, Data, float], nn.Module] = folded


METHODS = {
    "none": Method(""),
    "DWGL": Method("Zhan et al. 2019", dwgl),
    "group lasso (SSL, filters and what reads them)": Method("Wen et al. 2016", group_lasso),
    "SSL, shape-wise": Method("Wen et al. 2016", shapes),
    "SSL, depth-wise": Method("Wen et al. 2016", depths, partial(at_once, depth="auto")),
    "sparse learning": Method("Fang et al. 2023", partial(decays, partial(SparseLearning, strength=5e-3))),
    "GReg-1": Method("Wang et al. 2021", partial(planned, partial(GReg1, step=1e-3, every=5))),
    "IncReg": Method("Wang et al. 2018", partial(decays, partial(IncReg, channels=0.5))),
    "auto-balanced": Method("Ding et al. 2018", partial(planned, partial(AutoBalanced, strength=1e-2))),
    "SPP": Method("Wang et al. 2018", masked),
    "ResRep": Method("Ding et al. 2021", compactors),
    "stochastic depth": Method("Huang et al. 2016", dropped, partial(at_once, depth="auto")),
    "magnitudes, iterated": Method("Han et al. 2015", magnitudes),
    "soft weight-sharing": Method("Ullrich et al. 2017", shared),
    "NetAdapt": Method("Yang et al. 2018", cut=adapted),
    "HALP": Method("Shen et al. 2021", cut=on_the_clock),
}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    found = {name: [run(METHODS[name], seed, args) for seed in args.seeds]
             for name in tqdm(args.methods, unit="method", disable=None)}
    headers = ("before the cut", "cut", "fine-tuned", "MACs")
    rows = [(name, METHODS[name].source, *map(spread, zip(*runs, strict=True))) for name, runs in found.items()]
    print(tabulate(rows, ("trained on with", "source", *headers), tablefmt="github", disable_numparse=True))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--macs", type=float, default=0.3, help="the fraction that is kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args(arguments)


def run(method: Method, seed: int, args: argparse.Namespace) -> tuple[float, float, float, float]:
    """Accuracy before the cut, as cut and fine-tuned, and the share of the MACs that is left, in percent."""
    train, test = digits(seed)
    torch.manual_seed(seed)
    model = Net()
    fit(model, train, args.epochs, "train")
    steps = method.steps(model, fxprune.analyze(model, train[0][:1]), args.macs)
    train_on(model, steps, train, args.epochs)
    before = accuracy(model, test)
    small = method.cut(model, steps.criterion, train, args.macs)
    cut, record = accuracy(small, test), fxprune.record(small)
    fit(small.train(), train, args.epochs // 2, "fine-tune", lr=0.02)
    whole = record.before if record.overall is None else record.overall.before
    return before, cut, accuracy(small, test), 100 * record.after.macs / whole.macs


def train_on(model: nn.Module, steps: Steps, data: Data, epochs: int) -> None:
    """In place, with what a method does."""
    images, labels = data
    own = {id(p) for p in steps.parameters}
    optimizer = torch.optim.SGD([{"params": [p for p in model.parameters() if id(p) not in own]},
                                 {"params": steps.parameters, "weight_decay": 0.0}],
                                0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // BATCH))
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[:len(images) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            with steps.around(model):
                (F.cross_entropy(model(images[batch]), labels[batch]) + steps.term(model)).backward()
            steps.gradients(model)
            optimizer.step()
            steps.updated(model, scheduler.get_last_lr()[0])
            scheduler.step()
        steps.epoch(model)
    steps.finish(model)


def spread(values: Sequence[float]) -> str:
    """Their mean, and how far from it the farthest lies.

    >>> spread([90.0]), spread([90.0, 91.0])
    ('90.00', '90.50 ± 0.50')
    """
    mean = statistics.mean(values)
    return f"{mean:.2f}" + (f" ± {max(abs(value - mean) for value in values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
