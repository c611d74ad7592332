"""``fxprune compress MODEL``: the arguments of `fxprune.compress` as options, and the folder of `fxprune.save`."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import fxprune
from fxprune.artefacts.saving import Saved, check_folder
from fxprune.cli.data_arguments import add_data, data_arguments
from fxprune.cli.model_arguments import add_policy, built, command, example, policy
from fxprune.cli.sharded import add_sharded, compress_shards
from fxprune.cli.stages import stage
from fxprune.cli.target_options import add_target, target
from fxprune.errors import InputError
from fxprune.planning.criteria import CRITERIA
from fxprune.planning.scopes import PRICES, SCOPES
from fxprune.planning.vote import VOTES
from fxprune.report.compression import compression_table

BUDGETS = ("macs", "params", "channels", "threshold", "widths")
TIMES = ("latency", "latency_ms")


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "compress", _run, "remove channels, verify the result, write it to a folder",
                   needed=False)
    add_policy(made)
    _what(made)
    add_data(made)
    _output(made)
    _time(made)
    add_sharded(made)


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options as `fxprune.compress` takes them."""
    return {**_cut(options), "fold_constants": options.fold_constants, "verify": not options.no_verify,
            "policy": policy(options), **data_arguments(options)}


def _cut(options: argparse.Namespace) -> dict[str, Any]:
    """How much goes, and where."""
    budget = {kind: value for kind in (*BUDGETS, *TIMES) if (value := getattr(options, kind)) is not None}
    if options.widths:
        budget["widths"] = dict(map(_width, options.widths))
    if options.channels:
        budget["channels"] = _channels(options.channels)
    return {**budget, "criterion": options.criterion, "vote": options.vote, "scope": options.scope,
            "round_to": options.round_to, "min_channels": options.min_channels, "groups": options.groups or "auto",
            "ignore": tuple(options.ignore), "uniform": options.uniform, "per": options.per}


def _width(text: str) -> tuple[str, int]:
    """A group and its width, as ``--width`` takes them; names may hold ``=``.

    >>> _width("layer1.0.conv1=32")
    ('layer1.0.conv1', 32)
    """
    name, _, width = text.rpartition("=")
    if not name or not width.isdecimal():
        raise InputError(f"--width must be a group and its width, got {text!r}; write --width conv1=32")
    return name, int(width)


def _channels(texts: Sequence[str]) -> float | dict[str, Any]:
    """``--channels`` as it is written: one fraction, or patterns with theirs.

    >>> _channels(["0.5"]), _channels(["layer1.*=0.8", "layer4.*=0.2:0.5"])
    (0.5, {'layer1.*': 0.8, 'layer4.*': (0.2, 0.5)})
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            numbers = tuple(map(float, value.split(":")))
        except ValueError:
            numbers = ()
        if not 1 <= len(numbers) <= 2 or (not name and len(texts) * len(numbers) > 1):
            raise InputError(f"--channels must be one fraction, or a pattern with a fraction or two, got {text!r}; "
                             "write --channels 0.5, or --channels 'layer1.*=0.8' --channels 'layer4.*=0.2:0.5'")
        found[name] = numbers[0] if len(numbers) == 1 else numbers
    return found.get("", found)


def _what(command: argparse.ArgumentParser) -> None:
    """What is removed, and how much of it."""
    budget = command.add_mutually_exclusive_group()
    for kind, what in (("macs", "multiply-accumulates"), ("params", "parameters")):
        budget.add_argument(f"--{kind}", type=float, metavar="FRACTION", help=f"the fraction of {what} to keep")
    command.add_argument("--channels", action="append", metavar="[PATTERN=]FRACTION", help="the fraction of channels "
                         "of each group to keep; or of groups of layers that match a pattern, repeated for several, "
                         "which beside --macs, --params or --latency is the most that they keep, or the LEAST:MOST")
    budget.add_argument("--threshold", type=float, metavar="SCORE", help="remove the channels that score below it")
    budget.add_argument("--width", action="append", dest="widths", metavar="GROUP=N", help="the width of this group, "
                        "and all others whole; repeat it for several")
    for name, choices, default, about in (
            ("criterion", {*CRITERIA, "auto"}, "l2", "how channels are scored (%(default)s)"),
            ("vote", VOTES, "joint", "how voters agree (%(default)s)"),
            ("scope", SCOPES, None, "compare channels across groups in units of their group's mean (global), as they "
             "are (absolute) or among groups of like shape (isomorphic), or cut all groups alike (uniform)"),
            ("per", PRICES, None, "divide scores by what a channel costs")):
        command.add_argument(f"--{name}", choices=sorted(choices), default=default, help=about)
    command.add_argument("--round-to", type=int, metavar="N", help="widths are multiples of N; 1 if left out, and with "
                         "--latency what is good on the target")
    command.add_argument("--min-channels", type=int, default=1, metavar="N", help="every group keeps N (%(default)s)")
    command.add_argument("--uniform", action="store_true", help="one width for groups that play the same role in "
                         "repeated blocks: the same path but for a number")
    command.add_argument("--groups", action="append", metavar="NAME", help="cut only this group, or the groups of "
                         "layers that match this pattern; repeat it for several")
    command.add_argument("--ignore", action="append", default=[], metavar="NAME", help="leave the channels of this "
                         "module, or of modules that match this pattern, as they are; repeat it for several")
    command.add_argument("--fold-constants", action="store_true",
                         help="fold what a removed channel would have had as a constant into its readers")


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


def _output(command: argparse.ArgumentParser) -> None:
    """What is checked, printed and written."""
    command.add_argument("--no-verify", action="store_true", help="do not check the result against the original")
    command.add_argument("--out", metavar="FOLDER", help="write the artefact there: plan, weights, standalone "
                         "source, exported program, reports")
    command.add_argument("--format", choices=("text", "md"), default="text")
    command.add_argument("--layers", action="store_true", help="show the width of every layer as well")


def _run(options: argparse.Namespace) -> None:
    if options.checkpoint_dir:
        return compress_shards(options, _cut(options), example(options.inputs), policy(options))
    if options.model is None or options.config:
        options.command.error("a MODEL is needed; --config stands for it only with --checkpoint-dir")
    if options.out:
        # Before minutes are spent on what cannot be written.
        check_folder(options.out)
    loaded = built(options)
    with stage(f"compressing {options.model}{'' if options.no_verify else ' and verifying the result'}"):
        small = fxprune.compress(loaded.model, example(options.inputs), **arguments(options),
                                 **_clock(options, loaded.model))
    title = f"{options.model}: {loaded.weights}"
    try:
        saved = _saved(small, options.out, title) if options.out else None
    finally:
        # Also where the disk is full: what was found out is not lost.
        print(f"{title}\n\n{compression_table(fxprune.record(small), options.format, options.layers)}")
    if saved:
        print(f"\nwritten: {options.out} ({', '.join(saved.files)})")
        for name, why in saved.missing.items():
            print(f"left out: {name}: {why}")


def _saved(small: nn.Module, folder: str, title: str) -> Saved:
    with stage(f"writing {folder}"), warnings.catch_warnings():
        # What is left out is printed.
        warnings.simplefilter("ignore")
        return fxprune.save(small, folder, title=title)
