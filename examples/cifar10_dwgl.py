"""DWGL on CIFAR-10: one command per row of the table, resumable, logged as JSON lines.

    python examples/cifar10_dwgl.py --row baseline   --data cifar10.npz --out runs/baseline
    python examples/cifar10_dwgl.py --row dwgl-paper --data cifar10.npz --out runs/dwgl-paper \
        --init runs/baseline/trained.safetensors
    python examples/cifar10_dwgl.py --row baseline   --data cifar10.npz --out runs/scratch \
        --plan runs/dwgl-paper/plan.json
    python examples/cifar10_dwgl.py --check --data cifar10.npz     # the kept checkpoints, in a minute, no training

Figures are those of the last epoch on the 10,000 test images. Choices belong on ``--validation``: then 45,000 images
are learnt, the other 5,000 of the training set are held out, and the test images are not looked at. After an
interruption the same command with --resume goes on where it stopped. The folder --out receives

    pressed/ or penalised/, finetuned*/    checkpoint.pt and log.jsonl, one line an epoch
    trained.safetensors          after the penalty, before the cut; the channels in their new order
    plan*.json, small*.safetensors, votes.txt
    log.jsonl                    votes, folds and rows, one line each
    rows.jsonl                   one line per network, as in the printed table
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from cifar10 import Split, normalise, validation_split
from cifar10_command import begin, common_options
from dwgl_recipes import PAPER, ROWS, Recipe
from safetensors.torch import load_model, save_model
from tabulate import tabulate
from torch import Tensor, nn
from training import AfterStep, Config, evaluate, fit

import fxprune
from fxprune.models import cifar_resnet
from fxprune.training import Ramp
from fxprune.training.decay import SparseLearning

CHECKPOINTS = Path(__file__).parent / "checkpoints"
THRESHOLD = 1e-3
# The images that an order by activations and a recovery read, and those on which what dead filters emit is measured.
CALIBRATING, FOLDING = 1024, 512


@dataclass(frozen=True)
class Row:
    """One line of the table: a network at one moment; accuracies in percent, fractions of the original."""

    row: str
    network: str
    accuracy: float
    error_increment: float | None
    macs: int
    macs_pruned: float
    params: int
    params_pruned: float
    epochs: int
    seed: int
    held_out: str


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    train, test = begin(args)
    if args.check:
        from dwgl_check import check

        print(check(test, CHECKPOINTS, args.device))
        return
    if args.validation:
        train, test = validation_split(train)
    experiment = Experiment(args, train, test)
    rows = experiment.run()
    (args.out / "rows.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    print(table(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = common_options(__doc__)
    add = parser.add_argument
    add("--row", choices=tuple(ROWS), help="which row of the table")
    add("--depth", type=int, default=20, choices=tuple(PAPER))
    add("--init", type=Path, help="the trained network to start from (.safetensors); needed by all but the baseline")
    add("--plan", type=Path, help="baseline: the smaller network that another row's plan makes, from scratch")
    add("--epochs", type=int, default=40, help="of the press, without a penalty if the row has none (baseline: of "
        "training)")
    add("--finetune-epochs", type=int, default=40, help="after the cut")
    add("--warmup", type=float, default=0.5, help="epochs over which the learning rate rises, in either phase")
    add("--weight-decay", type=float, default=1e-4, help="in the press")
    add("--finetune-weight-decay", type=float, default=5e-4, help="after the cut, and of the baseline")
    add("--no-norm-decay", dest="decay_norms", action="store_false", help="weights alone decay, in all phases")
    add("--recover", choices=("least_squares", "statistics"), help="make up for the cut, before what follows it")
    add("--distil", type=float, default=0.0, help="after the cut: the share of the original's outputs in the loss")
    add("--ema", type=float, default=0.0, help="after the cut: the decay of a moving average of the weights")
    add("--order", choices=("activation", "bn_scale", "l1", "l2"), help="of the channels, in place of the row's own")
    add("--strength", type=float, help="of the penalty; default 0.01 (sparse learning: 5e-4)")
    add("--direction", type=float, nargs=2, metavar=("FIRST", "LAST"), help="in place of the row's own")
    add("--power", type=float, help="in place of the row's own")
    add("--macs", type=float, help="the fraction kept, in place of the paper's")
    add("--ramp-rate", type=float, default=0.125, help="what the strength's factor grows by, four times an epoch")
    add("--ramp-limit", type=float, default=math.inf, help="the greatest factor: as far as another row's ramp went")
    add("--cost-weighting", choices=("macs", "params"), help="strength by what a channel costs")
    add("--balance", action="store_true", help="let small and large voters reach zero together")
    add("--set-aside", type=float, default=0.8, help="the share of the press after which a guided one is at its target")
    add("--out", type=Path, help="default: runs/<row>-resnet<depth>")
    add("--validation", action="store_true", help="hold out 5,000 training images; do not look at the test images")
    add("--no-finetune", action="store_true", help="stop after the vote")
    add("--check", action="store_true", help="evaluate, compress and verify the kept checkpoints; no training")
    args = parser.parse_args(arguments)
    if not args.check and not args.row:
        parser.error("name a --row, or --check")
    if args.row and args.row != "baseline" and (args.init is None or not args.init.is_file()):
        parser.error(f"--row {args.row} starts from a trained network; give --init x.safetensors, got {args.init}")
    if args.plan and (args.row != "baseline" or args.init):
        parser.error("--plan makes the smaller network of another row from scratch: for --row baseline, without --init")
    args.out = args.out or Path("runs") / f"{args.row}-resnet{args.depth}"
    return args


class Experiment:
    """One row, from the trained network to its line in the table."""

    def __init__(self, args: argparse.Namespace, train: Split, test: Split):
        self.args, self.train, self.test = args, train, test
        self.recipe: Recipe = ROWS[args.row]
        args.out.mkdir(parents=True, exist_ok=True)
        # Written anew: what a resumed run does not train again, it evaluates again.
        (args.out / "log.jsonl").unlink(missing_ok=True)

    def run(self) -> list[Row]:
        args = self.args
        torch.manual_seed(args.seed)
        model = cifar_resnet(args.depth).to(args.device)
        if args.init:
            load_model(model, args.init, device=args.device)
        self.original = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
        if args.row == "baseline":
            return [self._baseline(model)]
        coupling = fxprune.analyze(model, torch.zeros(1, 3, 32, 32, device=args.device))
        self.coupling, self.before = coupling, evaluate(model, self.test.images, self.test.labels)
        rows = [self._row("original", self.before, model, 0)]
        model = self._pressed(model)
        if args.no_finetune:
            return [*rows, self._row("penalised", evaluate(model, self.test.images, self.test.labels), model,
                                     args.epochs)]
        for name, plan in self._plans(model).items():
            plan.save(args.out / f"plan{name}.json")
            rows += self._finetuned(model, plan, name)
        return rows

    def _baseline(self, model: nn.Module) -> Row:
        """From scratch, or, from --init, for as long as the other rows get: both of their phases, nothing cut."""
        args = self.args
        if args.plan:
            model = fxprune.apply(model, fxprune.Plan.load(args.plan), weights="any")
        self.coupling = fxprune.analyze(model, torch.zeros(1, 3, 32, 32, device=args.device))
        if args.init:
            self._fit(model, self._press, "trained")
            self._fit(model, self._final, "continued", teacher=self.original)
        else:
            config = Config(epochs=args.epochs, lr=args.lr, weight_decay=args.finetune_weight_decay, seed=args.seed)
            self._fit(model, config, "trained")
        save_model(model, str(args.out / "trained.safetensors"))
        self.before = evaluate(model, self.test.images, self.test.labels)
        return self._row("baseline", self.before, model, args.epochs + (args.finetune_epochs if args.init else 0))

    @property
    def _press(self) -> Config:
        args = self.args
        return Config(epochs=args.epochs, lr=args.lr, weight_decay=args.weight_decay, seed=args.seed,
                      decay_norms=args.decay_norms, warmup=min(args.warmup, args.epochs))

    @property
    def _final(self) -> Config:
        args = self.args
        return Config(epochs=args.finetune_epochs, lr=args.finetune_lr, weight_decay=args.finetune_weight_decay,
                      seed=args.seed, decay_norms=args.decay_norms, distil=args.distil, ema=args.ema,
                      warmup=min(args.warmup, args.finetune_epochs))

    def _pressed(self, model: nn.Module) -> nn.Module:
        """The ordered model after the epochs of the press."""
        args, recipe = self.args, self.recipe
        if order := args.order or recipe.order:
            data = self._images(CALIBRATING).split(128) if order == "activation" else None
            model, permutation = fxprune.order(model, self.coupling, by=order, data=data)
            self._log({"event": "order", "by": order, "permutation": repr(permutation)})
        if not args.epochs:
            return model
        if recipe.penalty is None:
            self._fit(model, self._press, "pressed")
        elif recipe.penalty == "sparse-learning":
            self._fit(model, self._press, "penalised", extra_loss=SparseLearning(self.coupling, args.strength or 5e-4))
        else:
            dwgl = self._dwgl(model)
            self._fit(model, self._press, "penalised", state=dwgl, after_step=self._proximal(dwgl))
            votes = dwgl.votes(model, THRESHOLD)
            (args.out / "votes.txt").write_text(votes.report() + "\n")
            pruned = {rule: 1 - votes.fraction(rule) for rule in ("intersection", "majority", "joint", "union")}
            self._log({"event": "votes", "strength": dwgl.penalty, "macs_pruned": pruned,
                       "channels": {name: {rule: b.size - len(b.kept(rule)) for rule in pruned}
                                    for name, b in votes.ballots.items()}})
        save_model(model, str(args.out / "trained.safetensors"))
        return model

    def _dwgl(self, model: nn.Module) -> fxprune.DWGL:
        args, options = self.args, dict(self.recipe.options)
        if args.direction:
            options["direction"] = tuple(args.direction)
        if args.power:
            options["power"] = args.power
        if args.cost_weighting:
            options["cost_weighting"] = args.cost_weighting
        # The widest of a family: what is at zero has no gradient, and would be dead weight in the wider ones.
        until, updates = max(self.recipe.family, default=self._target()), math.ceil(len(self.train) / 128)
        if self.recipe.guided:
            steps = max(round(args.set_aside * args.epochs * updates), 10)
            return fxprune.DWGL.towards(self.coupling, macs=until, steps=steps, **options)
        if self.recipe.ramp:
            every = max(len(self.train) // 128 // 4, 1)
            options["schedule"] = Ramp(until, args.ramp_rate, every, args.ramp_limit, THRESHOLD, after=0.0)
        dwgl = fxprune.DWGL(self.coupling, args.strength or 0.01, **options)
        if args.balance:
            dwgl.balance_(model)
        return dwgl

    def _proximal(self, dwgl: fxprune.DWGL) -> AfterStep:
        def after_step(model: nn.Module, lr: float) -> None:
            before = dwgl.progress
            dwgl.proximal_(model, lr)
            dwgl.step(model)
            if dwgl.progress.factor != before.factor:
                self._log({"event": "press", **asdict(dwgl.progress), "was": before.factor})

        return after_step

    def _plans(self, model: nn.Module) -> dict[str, fxprune.Plan]:
        """Suffix of the files' names -> plan."""
        recipe, options = self.recipe, {"criterion": self.recipe.criterion, "vote": self.recipe.vote}
        if recipe.family:
            family = fxprune.nested(self.coupling, model, macs=list(recipe.family), **options)
            self._log({"event": "nested", "report": family.report()})
            return {f"-{macs:g}": plan for macs, plan in zip(recipe.family, family, strict=True)}
        plan = fxprune.plan(self.coupling, model, threshold=THRESHOLD, **options)
        # Where the votes go beyond the budget, putting dead filters back would cost and gain nothing.
        if recipe.budget == "paper" and self._left(plan) > self._target():
            plan = fxprune.plan(self.coupling, model, macs=self._target(), **options)
        return {"": plan}

    def _finetuned(self, model: nn.Module, plan: fxprune.Plan, name: str) -> list[Row]:
        args = self.args
        recovery = {"recover": args.recover, "data": self._images(CALIBRATING).split(128),
                    "samples": CALIBRATING} if args.recover else {}
        # What dead filters still emit (their batch norm's shift) goes into the layers that read them.
        small = fxprune.apply(model, plan, fold_constants=self.recipe.penalty == "dwgl",
                              calibration=self._images(FOLDING), **recovery)
        folds = {f.layer: [f.into, f.inexact] for f in fxprune.record(small).folds}
        self._log({"event": f"folded{name}", "into, inexact": folds})
        cut = self._row(f"cut{name}", evaluate(small, self.test.images, self.test.labels), small, args.epochs, plan)
        self._fit(small, self._final, f"finetuned{name}", teacher=self.original)
        save_model(small, str(args.out / f"small{name}.safetensors"))
        accuracy = evaluate(small, self.test.images, self.test.labels)
        total = args.epochs + args.finetune_epochs
        return [cut, self._row(f"fine-tuned{name}", accuracy, small, total, plan)]

    def _fit(self, model: nn.Module, config: Config, name: str, **hooks: object) -> None:
        fit(model, self.train, self.test, config, self.args.out / name, label=f"{self.args.row} {name}",
            resume=self.args.resume, **hooks)

    def _images(self, count: int) -> Tensor:
        return normalise(self.train.images[:count].to(self.args.device))

    def _target(self) -> float:
        return self.args.macs or PAPER[self.args.depth]

    def _left(self, plan: fxprune.Plan) -> float:
        """The fraction of MACs that a plan keeps."""
        costs, full = self.coupling.costs, self.coupling.widths
        now = [plan.widths.get(name, width) for name, width in zip(costs.groups, full, strict=True)]
        return costs.macs(np.array(now)) / costs.macs(full)

    def _row(self, network: str, accuracy: float, model: nn.Module, epochs: int, plan: fxprune.Plan | None = None,
             ) -> Row:
        costs, full = self.coupling.costs, self.coupling.widths
        left = 1.0 if plan is None else self._left(plan)
        params = sum(p.numel() for p in model.parameters())
        row = Row(self.args.row, network, accuracy, self.before - accuracy, round(left * costs.macs(full)), 1 - left,
                  params, 1 - params / costs.params(full), epochs, self.args.seed,
                  "validation" if self.args.validation else "test")
        self._log({"event": "row", **asdict(row)})
        return row

    def _log(self, record: dict[str, object]) -> None:
        with (self.args.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def table(rows: Sequence[Row]) -> str:
    headers = ("row", "network", "accuracy %", "error +", "MACs M", "MACs pruned", "params k", "params pruned",
               "epochs", "seed", "held out")
    cells = [(r.row, r.network, f"{r.accuracy:.2f}", f"{r.error_increment:+.2f}", f"{r.macs / 1e6:.2f}",
              f"{r.macs_pruned:.2%}", f"{r.params / 1e3:.1f}", f"{r.params_pruned:.2%}", r.epochs, r.seed, r.held_out)
             for r in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
