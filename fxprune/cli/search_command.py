"""``fxprune search MODEL``: the arguments of `fxprune.search` as options, with workers that share a storage."""

import argparse
import subprocess
import sys
from typing import Any

import fxprune
from fxprune.artefacts.saving import check_folder
from fxprune.cli.data_arguments import add_data, data_arguments
from fxprune.cli.model_arguments import add_policy, analyzed, command
from fxprune.cli.stages import stage
from fxprune.errors import InputError
from fxprune.models.named import imported
from fxprune.planning.criteria import CRITERIA
from fxprune.planning.vote import VOTES
from fxprune.searching.space import UNITS
from fxprune.searching.studies import require_optuna, storage_of

PRUNERS = {"none": "NopPruner", "median": "MedianPruner", "halving": "SuccessiveHalvingPruner",
           "hyperband": "HyperbandPruner"}
SAMPLERS = {"tpe": "", "random": "RandomSampler", "nsga2": "NSGAIISampler"}


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "search", _run, "search for a better plan with Optuna: your function says what one is "
                   "worth")
    add_policy(made)
    made.add_argument("--evaluate", required=True, metavar="FILE.PY:NAME", help="a function evaluate(small), or "
                      "evaluate(small, report), that returns a number or several")
    budget = made.add_mutually_exclusive_group()
    budget.add_argument("--macs", type=float, metavar="FRACTION", help="what every trial keeps of them")
    budget.add_argument("--params", type=float, metavar="FRACTION", help="likewise, of the parameters; where neither "
                        "is given, the cost should be one of the values")
    _space(made)
    add_data(made)
    _study(made)
    made.add_argument("--out", metavar="FOLDER", help="write the best trial's model there, as fxprune compress does")
    made.add_argument("--plot", metavar="FILE", help="draw what was found")


def _space(made: argparse.ArgumentParser) -> None:
    """What trials differ in."""
    made.add_argument("--by", choices=UNITS, default="group", help="a share for each of these (%(default)s)")
    made.add_argument("--criterion", action="append", choices=sorted(CRITERIA), help="how channels are scored; repeat "
                      "it to search among several (l2)")
    made.add_argument("--vote", action="append", choices=sorted(VOTES), help="how voters agree; likewise (joint)")
    made.add_argument("--round-to", type=int, default=1, metavar="N", help="widths are multiples of N (%(default)s)")
    made.add_argument("--min-channels", type=int, default=1, metavar="N", help="every group keeps N (%(default)s)")
    made.add_argument("--groups", action="append", metavar="NAME", help="cut only these; as for fxprune compress")
    made.add_argument("--ignore", action="append", default=[], metavar="NAME", help="leave these as they are")
    made.add_argument("--sensitivity", action="store_true", help="no search: cut one unit at a time, to the --kept "
                      "shares, and show what that costs")
    made.add_argument("--kept", type=float, action="append", metavar="SHARE", help="for --sensitivity; repeat it "
                      "(0.75, 0.5, 0.25)")


def _study(made: argparse.ArgumentParser) -> None:
    """Where trials are kept, and how they are proposed."""
    made.add_argument("--trials", type=int, default=100, metavar="N", help="in all, over all workers (%(default)s)")
    made.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (%(default)s)")
    made.add_argument("--storage", metavar="URL", help="sqlite:///search.db, journal:///search.log, grpc://host:port: "
                      "a search that was interrupted goes on there, and workers anywhere share it")
    made.add_argument("--study", metavar="NAME", help="its name in the storage; the MODEL's if left out")
    made.add_argument("--direction", action="append", choices=("maximize", "minimize"), help="of each value (maximize)")
    made.add_argument("--sampler", choices=SAMPLERS, default="tpe")
    made.add_argument("--pruner", choices=PRUNERS, default="none", help="ends trials early by what evaluate reports "
                      "(%(default)s)")
    made.add_argument("--search-seed", type=int, metavar="N", help="of the sampler")
    made.add_argument("--worker", type=int, help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> None:
    evaluate = imported(options.evaluate, "--evaluate")
    if options.out:
        check_folder(options.out)
    if options.workers < 1:
        raise InputError(f"--workers must be at least 1, got {options.workers}")
    if options.workers > 1 and options.worker is None:
        _spread(options)
    loaded, coupling = analyzed(options)
    with stage(f"searching with {options.evaluate}"):
        found = _found(options, loaded.model, coupling, evaluate)
    if options.worker is not None:
        return
    print(f"{options.model}: {loaded.weights}\n\n{found.report()}")
    if options.plot:
        found.plot(options.plot)
    if options.out and isinstance(found, fxprune.searching.Found):
        fxprune.save(found.module(), options.out, title=f"{options.model}: {loaded.weights}")
        print(f"\nwritten: {options.out}")


def _found(options: argparse.Namespace, model: Any, coupling: Any, evaluate: Any) -> Any:
    data = data_arguments(options)
    recover, criteria, votes = data.pop("recover"), options.criterion or ["l2"], options.vote or ["joint"]
    shared = {"by": options.by, "groups": options.groups or "auto", "ignore": tuple(options.ignore),
              "round_to": options.round_to, "min_channels": options.min_channels, "storage": options.storage,
              "study": options.study or (options.storage and _name(options)), **data}
    if options.sensitivity:
        if len(criteria) + len(votes) > 2:
            raise InputError("--sensitivity takes one --criterion and one --vote")
        return fxprune.sensitivity(model, coupling, evaluate, kept=options.kept or (0.75, 0.5, 0.25),
                                   criterion=criteria[0], vote=votes[0], recover=recover, **shared)
    optuna = require_optuna()
    seed = None if options.search_seed is None else options.search_seed + (options.worker or 0)
    budget = {kind: value for kind in ("macs", "params") if (value := getattr(options, kind)) is not None}
    return fxprune.search(model, coupling, evaluate, budget=budget or None, trials=options.trials, criteria=criteria,
                          votes=votes, recoveries=(recover,), directions=options.direction or ("maximize",),
                          sampler=None if options.sampler == "tpe" else getattr(
                              optuna.samplers, SAMPLERS[options.sampler])(seed=seed), seed=seed,
                          pruner=None if options.pruner == "none" else getattr(optuna.pruners,
                                                                               PRUNERS[options.pruner])(), **shared)


def _name(options: argparse.Namespace) -> str:
    """What a study is called that was given no name."""
    return f"{options.model}, sensitivity" if options.sensitivity else str(options.model)


def _spread(options: argparse.Namespace) -> None:
    """The same command, in several processes that share the storage, until they are done.

    Raises:
        InputError: there is nothing to share, or every worker failed.
    """
    if not options.storage:
        raise InputError("workers share their trials by a storage; write --storage sqlite:///search.db")
    # Tables are made once, before several make them.
    storage_of(options.storage)
    words = [sys.executable, "-m", "fxprune", *options.words]
    workers = [subprocess.Popen([*words, "--worker", str(number)]) for number in range(options.workers)]
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
    if all(codes):
        raise InputError(f"all {len(codes)} workers failed; what they said stands above")
    for number, code in enumerate(codes):
        if code:
            print(f"fxprune: worker {number} ended with code {code}; the others did its share", file=sys.stderr)
