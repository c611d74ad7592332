"""``fxprune groups MODEL``: the coupling groups as a table, as data, or as a page."""

import argparse
import sys
from typing import Any

from fxprune.cli.model_arguments import add_policy, analyzed, command
from fxprune.report.table import FORMATS


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "groups", _run, "show which channels must be removed together")
    add_policy(made)
    made.add_argument("--format", choices=sorted(FORMATS), default="text")
    made.add_argument("--html", metavar="FILE", help="write the page with the drawn network to this file as well")


def _run(options: argparse.Namespace) -> None:
    loaded, coupling = analyzed(options)
    if options.html:
        coupling.to_html(options.html, title=options.model)
    # What a program reads holds nothing but the data.
    stream = sys.stdout if options.format in ("text", "md") else sys.stderr
    print(f"{options.model}: {loaded.weights}\n", file=stream)
    print(coupling.report(options.format))
    if options.html:
        print(f"\nwritten: {options.html}", file=stream)
