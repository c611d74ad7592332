"""The command line: ``fxprune groups``, ``fxprune explain``, ``fxprune compress``, ``fxprune search``,
``fxprune table``, ``fxprune bench``.

Exit codes: 0; 1 where `explain` finds nothing; 2 where something was refused, which is one line on the error stream;
130 after Ctrl-C. What a program reads (JSON, CSV) is all that goes to the output.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from fxprune import interrupts
from fxprune.cli import (
    bench_command,
    compress_command,
    explain_command,
    groups_command,
    search_command,
    table_command,
)
from fxprune.errors import FxpruneError
from fxprune.ir.versions import installed

COMMANDS = (groups_command, explain_command, compress_command, search_command, table_command, bench_command)
REFUSED, INTERRUPTED = 2, 130
# What a message calls an argument of Python's, and what it is called here.
INPUTS = "--input SHAPE[:DTYPE], once for each argument of forward"
SPELLED = {"example_inputs": INPUTS, "example inputs must fit": INPUTS,
           "trust=True": "a MODEL by name beside the folder, or --trust"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    interrupts.raise_from_now()
    try:
        options = _parsed(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            return options.run(options) or 0
    except FxpruneError as error:
        print(f"fxprune: {_told(error)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough (``| head``); nothing more can be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="fxprune", description="Structured pruning for PyTorch, compiled and verified.")
    top.add_argument("--version", action="version", version=f"fxprune {installed('fxprune')}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. What is left over is an error of the command that it was given to, with that command's usage."""
    options, left = parser().parse_known_args(arguments)
    options.words = list(sys.argv[1:] if arguments is None else arguments)
    if left:
        options.command.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _warned(message: Warning | str, *where: Any, **more: Any) -> None:
    """On one line, without the line of the code that warns."""
    print(f"fxprune: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _told(error: FxpruneError) -> str:
    """The message on one line, with the options that stand for what only Python can be given."""
    words = " ".join(str(error).split())
    hints = [option for name, option in SPELLED.items() if name in words]
    return words + "".join(f"; on the command line: {option}" for option in hints)
