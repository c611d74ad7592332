"""``fxprune explain MODEL A B``: what couples two layers."""

import argparse
from typing import Any

from fxprune.cli.model_arguments import add_policy, analyzed, command
from fxprune.coupling.explanation import coupled


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "explain", _run, "say what couples two layers")
    add_policy(made)
    made.add_argument("a", metavar="A", help="a layer, like layer1.0.conv2")
    made.add_argument("b", metavar="B", help="another layer")


def _run(options: argparse.Namespace) -> int:
    """Exit code 1 where nothing couples the layers, as ``grep`` has where it finds nothing."""
    _, coupling = analyzed(options)
    print(coupling.explain(options.a, options.b))
    return 0 if coupled(coupling, options.a, options.b) else 1
