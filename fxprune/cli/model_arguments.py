"""What every command takes: a model, its weights, its example inputs, and how splits are pruned."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

import fxprune
from fxprune.cli.stages import stage
from fxprune.errors import InputError
from fxprune.models.named import FORMS, Loaded, load


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], about: str,
            model: str = FORMS, needed: bool = True) -> argparse.ArgumentParser:
    """A new subcommand with the model's options; its own are for the caller to add.

    Args:
        commands: of ``add_subparsers``.
        name: as it is typed.
        run: carries it out, and may return an exit code.
        about: one line, in lower case.
        model: what MODEL may be.
        needed: whether it must be given.
    """
    made = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    made.set_defaults(run=run, command=made)
    made.add_argument("model", metavar="MODEL", nargs=None if needed else "?", help=model)
    made.add_argument("--weights", metavar="FILE", help="a checkpoint (safetensors, or what torch.save wrote), or "
                      "'pretrained' where there is a network; random weights if left out")
    made.add_argument("--key", metavar="NAME", help="which state dict of the checkpoint, like ema; the most likely one "
                      "if left out")
    made.add_argument("--strict", action=argparse.BooleanOptionalAction, default=True, help="every tensor of the "
                      "checkpoint must fit; otherwise what does not is listed (%(default)s)")
    made.add_argument("--num-classes", type=int, metavar="N", help="outputs of the head of a torchvision or "
                      "timm model, or of a callable that takes num_classes")
    made.add_argument("--seed", type=int, default=0, help="of random weights (%(default)s)")
    made.add_argument("--input", metavar="SHAPE[:DTYPE]", action="append", dest="inputs",
                      help="an example input, like 1,3,224,224 or 1,16:int64; repeat it for several; inferred if "
                           "left out")
    return made


def add_policy(command: argparse.ArgumentParser) -> None:
    """How splits are pruned, for the commands that prune."""
    command.add_argument("--heads", choices=("dims", "whole"), default="dims",
                         help="prune inside every attention head, or whole heads (%(default)s)")
    command.add_argument("--grouped", choices=("within", "whole"), default="within",
                         help="prune inside every group of a grouped convolution, or whole groups (%(default)s)")
    command.add_argument("--form", choices=("graph", "module"), default="graph",
                         help="the result: a graph, or a smaller copy of the model's own class, for which what its "
                         "Python fixes stays (%(default)s)")
    command.add_argument("--keep-output", action="append", dest="outputs", metavar="NAME", help="this output keeps its "
                         "size, and others may shrink; repeat it for several; all keep theirs if left out")


def policy(options: argparse.Namespace) -> fxprune.Policy:
    """The policy that the options ask for."""
    return fxprune.Policy(heads=options.heads, grouped=options.grouped, form=options.form, outputs=options.outputs)


def built(options: argparse.Namespace) -> Loaded:
    """MODEL with its weights."""
    with stage(f"building {options.model}"):
        return load(options.model, options.weights, options.seed, key=options.key, strict=options.strict,
                    num_classes=options.num_classes)


def analyzed(options: argparse.Namespace) -> tuple[Loaded, fxprune.Coupling]:
    """MODEL, and its coupling groups."""
    loaded = built(options)
    with stage(f"analysing {options.model}"):
        return loaded, fxprune.analyze(loaded.model, example(options.inputs), policy=policy(options))


def example(inputs: Sequence[str] | None) -> tuple[torch.Tensor, ...] | None:
    """The example inputs that were described, or None where none were."""
    return tuple(map(tensor, inputs)) if inputs else None


def tensor(text: str) -> torch.Tensor:
    """An example input from its description.

    >>> tensor("1,16:int64").shape, tensor("2,3").dtype
    (torch.Size([1, 16]), torch.float32)
    """
    shape, _, name = text.partition(":")
    dtype = getattr(torch, name or "float32", None)
    sizes = shape.split(",")
    if not isinstance(dtype, torch.dtype) or not all(size.strip().isdigit() and int(size) for size in sizes):
        raise InputError(f"--input must be sizes and perhaps a dtype, got {text!r}; write --input 1,3,224,224 or "
                         "--input 1,16:int64")
    return torch.zeros(tuple(map(int, sizes)), dtype=dtype)
