"""The command line: ``fxprune groups``, ``fxprune explain``, ``fxprune compress``, ``fxprune bench``.

Options of ``compress`` are the arguments of `fxprune.compress`. A refusal is one line on the error stream and exit
code 2; what a program reads (JSON, CSV) is all that goes to the output then.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

import fxprune
from fxprune.artefacts.saving import Saved, check_folder
from fxprune.errors import FxpruneError, InputError
from fxprune.latency import bench
from fxprune.models.named import Loaded, load
from fxprune.planning.criteria import CRITERIA
from fxprune.planning.vote import VOTES
from fxprune.report.compression import compression_table
from fxprune.report.table import FORMATS

MODEL = "a torchvision name, timm:NAME, package.module:callable or file.py:callable"
BUDGETS = ("macs", "params", "channels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 where something was refused.
    """
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except FxpruneError as error:
        print(f"fxprune: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough (``| head``); nothing more can be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="fxprune", description="Structured pruning for PyTorch, compiled and verified.")
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _groups(_command(commands, "groups", _run_groups, "show which channels must be removed together"))
    _explain(_command(commands, "explain", _run_explain, "say what couples two layers"))
    _compress(_command(commands, "compress", _run_compress, "remove channels, verify the result, write it to a folder"))
    bench.options(_command(commands, "bench", _run_bench, "time a model and a smaller one in turns, beside their MACs",
                           policies=False, model=f"{MODEL}; or a folder that compress --out wrote"))
    return top


def _version() -> str:
    try:
        return f"fxprune {version('fxprune')}"
    except PackageNotFoundError:
        return "fxprune (not installed)"


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], about: str,
             policies: bool = True, model: str = MODEL) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    command.set_defaults(run=run)
    command.add_argument("model", metavar="MODEL", help=model)
    command.add_argument("--weights", metavar="FILE", help="a checkpoint (safetensors, or a state dict), or "
                         "'pretrained' where there is a network; random weights if left out")
    command.add_argument("--seed", type=int, default=0, help="of random weights (%(default)s)")
    command.add_argument("--input", metavar="SHAPE[:DTYPE]", action="append", dest="inputs",
                         help="an example input, like 1,3,224,224 or 1,16:int64; repeat it for several; inferred if "
                              "left out")
    if not policies:
        return command
    command.add_argument("--heads", choices=("dims", "whole"), default="dims",
                         help="prune inside every attention head, or whole heads (%(default)s)")
    command.add_argument("--grouped", choices=("within", "whole"), default="within",
                         help="prune inside every group of a grouped convolution, or whole groups (%(default)s)")
    return command


def _groups(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", choices=sorted(FORMATS), default="text")
    command.add_argument("--html", metavar="FILE", help="write the page with the drawn network to this file as well")


def _explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", metavar="A", help="a layer, like layer1.0.conv2")
    command.add_argument("b", metavar="B", help="another layer")


def _compress(command: argparse.ArgumentParser) -> None:
    budget = command.add_mutually_exclusive_group()
    for kind, what in zip(BUDGETS, ("multiply-accumulates", "parameters", "channels of each group"), strict=True):
        budget.add_argument(f"--{kind}", type=float, metavar="FRACTION", help=f"the fraction of {what} to keep")
    command.add_argument("--criterion", default="l2", help=f"{', '.join(sorted(CRITERIA))} (%(default)s)")
    command.add_argument("--vote", default="joint", help=f"{', '.join(sorted(VOTES))} (%(default)s)")
    command.add_argument("--scope", default="global", help="global, uniform (%(default)s)")
    command.add_argument("--round-to", type=int, default=1, metavar="N", help="widths are multiples of N (%(default)s)")
    command.add_argument("--min-channels", type=int, default=1, metavar="N", help="every group keeps N (%(default)s)")
    command.add_argument("--groups", action="append", metavar="NAME", help="cut only this group, or the groups of "
                         "layers that match this pattern; repeat it for several")
    command.add_argument("--ignore", action="append", default=[], metavar="NAME", help="leave the channels of this "
                         "module, or of modules that match this pattern, as they are; repeat it for several")
    command.add_argument("--fold-constants", action="store_true",
                         help="fold what a removed channel would have had as a constant into its readers")
    command.add_argument("--no-verify", action="store_true", help="do not check the result against the original")
    command.add_argument("--out", metavar="FOLDER", help="write the artefact there: plan, weights, standalone "
                         "source, exported program, reports")
    command.add_argument("--format", choices=("text", "md"), default="text")
    command.add_argument("--layers", action="store_true", help="show the width of every layer as well")


def _run_groups(options: argparse.Namespace) -> None:
    loaded, coupling = _analyzed(options)
    if options.html:
        coupling.to_html(options.html)
    # What a program reads holds nothing but the data.
    stream = sys.stdout if options.format in ("text", "md") else sys.stderr
    print(f"{options.model}: {loaded.weights}\n", file=stream)
    print(coupling.report(options.format))
    if options.html:
        print(f"\nwritten: {options.html}", file=stream)


def _run_explain(options: argparse.Namespace) -> None:
    _, coupling = _analyzed(options)
    print(coupling.explain(options.a, options.b))


def _run_compress(options: argparse.Namespace) -> None:
    if options.out:
        # Before minutes are spent on what cannot be written.
        check_folder(options.out)
    loaded = load(options.model, options.weights, options.seed)
    small = fxprune.compress(loaded.model, _example(options.inputs), **_arguments(options))
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
    with warnings.catch_warnings():
        # What is left out is printed.
        warnings.simplefilter("ignore")
        return fxprune.save(small, folder, title=title)


def _run_bench(options: argparse.Namespace) -> None:
    bench.run(options, _example(options.inputs))


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options as `fxprune.compress` takes them."""
    budget = {kind: value for kind in BUDGETS if (value := getattr(options, kind)) is not None}
    return {**budget, "criterion": options.criterion, "vote": options.vote, "scope": options.scope,
            "round_to": options.round_to, "min_channels": options.min_channels, "groups": options.groups or "auto",
            "ignore": tuple(options.ignore), "fold_constants": options.fold_constants,
            "verify": not options.no_verify, "policy": _policy(options)}


def _policy(options: argparse.Namespace) -> fxprune.Policy:
    return fxprune.Policy(heads=options.heads, grouped=options.grouped)


def _analyzed(options: argparse.Namespace) -> tuple[Loaded, Any]:
    loaded = load(options.model, options.weights, options.seed)
    return loaded, fxprune.analyze(loaded.model, _example(options.inputs), policy=_policy(options))


def _example(inputs: Sequence[str] | None) -> tuple[torch.Tensor, ...] | None:
    return tuple(map(_tensor, inputs)) if inputs else None


def _tensor(text: str) -> torch.Tensor:
    """An example input from its description.

    >>> _tensor("1,16:int64").shape, _tensor("2,3").dtype
    (torch.Size([1, 16]), torch.float32)
    """
    shape, _, name = text.partition(":")
    dtype = getattr(torch, name or "float32", None)
    sizes = shape.split(",")
    if not isinstance(dtype, torch.dtype) or not all(size.strip().isdigit() and int(size) for size in sizes):
        raise InputError(f"--input must be sizes and perhaps a dtype, got {text!r}; write --input 1,3,224,224 or "
                         "--input 1,16:int64")
    return torch.zeros(tuple(map(int, sizes)), dtype=dtype)
