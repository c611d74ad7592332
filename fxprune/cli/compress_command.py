"""``fxprune compress MODEL``: the arguments of `fxprune.compress` as options, and the folder of `fxprune.save`."""

import argparse
import warnings
from pathlib import Path
from typing import Any

from torch import nn

import fxprune
from fxprune.artefacts.saving import Saved, check_folder
from fxprune.cli.cut_arguments import add_cut, cut_arguments
from fxprune.cli.data_arguments import add_data, data_arguments
from fxprune.cli.finetuning import budgets_of_steps, finetuned, trainer
from fxprune.cli.model_arguments import add_policy, built, command, example, policy
from fxprune.cli.sharded import add_sharded, compress_shards
from fxprune.cli.stages import stage
from fxprune.cli.target_options import add_target, target
from fxprune.errors import InputError
from fxprune.report.compression import compression_table


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "compress", _run, "remove channels, verify the result, write it to a folder",
                   needed=False)
    add_policy(made)
    add_cut(made)
    add_data(made)
    _output(made)
    _time(made)
    _training(made)
    add_sharded(made)


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options as `fxprune.compress` takes them."""
    return {**cut_arguments(options), "fold_constants": options.fold_constants, "verify": not options.no_verify,
            "policy": policy(options), **data_arguments(options)}


def _time(command: argparse.ArgumentParser) -> None:
    """A budget of time, and where it is measured."""
    time = command.add_mutually_exclusive_group()
    time.add_argument("--latency", type=float, metavar="FRACTION", help="the fraction of the measured time to keep; "
                      "--macs or --params may bound it besides")
    time.add_argument("--latency-ms", type=float, metavar="MS", help="likewise, in milliseconds")
    command.add_argument("--table", metavar="FILE", help="the latency table: measured and written there, unless it is "
                         "there already")
    command.add_argument("--no-table-check", action="store_true", help="use a table of another model, machine or "
                         "target as it is")
    command.add_argument("--correction", type=float, default=1.0, metavar="FACTOR", help="how much slower models are "
                         "than the table says, to begin with (%(default)g)")
    add_target(command)


def _clock(options: argparse.Namespace, model: nn.Module) -> dict[str, Any]:
    """Target and table, where a time is asked."""
    if options.latency is None and options.latency_ms is None:
        if options.table:
            raise InputError("--table is what a time is kept by, and no time is asked; write --latency 0.5 as well")
        return {}
    where = target(options)
    clock = {"target": where, "table_check": not options.no_table_check, "correction": options.correction}
    if options.table and options.no_table_check and Path(options.table).exists():
        return {**clock, "table": fxprune.LatencyTable.load(options.table)}
    if options.table:
        coupling = fxprune.analyze(model, example(options.inputs), policy=policy(options))
        clock["table"] = fxprune.latency_table(coupling, model, where, path=options.table)
    return clock


def _training(command: argparse.ArgumentParser) -> None:
    """What follows the cut, and how often."""
    command.add_argument("--finetune", metavar="FILE.PY:NAME", help="a function fit(small, original) that trains the "
                         "result, in place or by returning another module of the same form")
    command.add_argument("--steps", type=int, metavar="N", help="with --macs or --params: get there in N compressions "
                         "along a cosine, each followed by --finetune")


def _output(command: argparse.ArgumentParser) -> None:
    """What is checked, printed and written."""
    command.add_argument("--fold-constants", action="store_true",
                         help="fold what a removed channel would have had as a constant into its readers")
    command.add_argument("--no-verify", action="store_true", help="do not check the result against the original")
    command.add_argument("--out", metavar="FOLDER", help="write the artefact there: plan, weights, standalone "
                         "source, exported program, reports")
    command.add_argument("--format", choices=("text", "md"), default="text")
    command.add_argument("--layers", action="store_true", help="show the width of every layer as well")


def _run(options: argparse.Namespace) -> None:
    if options.checkpoint_dir:
        return compress_shards(options, cut_arguments(options), example(options.inputs), policy(options))
    if options.model is None or options.config:
        options.command.error("a MODEL is needed; --config stands for it only with --checkpoint-dir")
    if options.out:
        # Before minutes are spent on what cannot be written.
        check_folder(options.out)
    fit, steps = trainer(options.finetune), budgets_of_steps(options)
    loaded = built(options)
    title, small = f"{options.model}: {loaded.weights}", loaded.model
    clock = _clock(options, small)
    for budget in steps:
        with stage(f"compressing {options.model}{'' if options.no_verify else ' and verifying the result'}"):
            small = fxprune.compress(small, example(options.inputs), **{**arguments(options), **budget}, **clock)
        if fit is not None:
            with stage(f"training the result by {options.finetune}"):
                small = finetuned(small, loaded.model, fit, options.finetune)
    try:
        saved = _saved(small, options.out, title) if options.out else None
    finally:
        # Also where the disk is full: what was found out is not lost.
        print(f"{title}\n\n{compression_table(fxprune.record(small), options.format, options.layers)}")
    if options.finetune:
        print(f"trained after it was verified, by {options.finetune}")
    if saved:
        print(f"\nwritten: {options.out} ({', '.join(saved.files)})")
        for name, why in saved.missing.items():
            print(f"left out: {name}: {why}")


def _saved(small: nn.Module, folder: str, title: str) -> Saved:
    with stage(f"writing {folder}"), warnings.catch_warnings():
        # What is left out is printed.
        warnings.simplefilter("ignore")
        return fxprune.save(small, folder, title=title)
