"""``fxprune table MODEL --out table.json``: measure what layers take over their widths."""

import argparse
from typing import Any

import fxprune
from fxprune.cli.model_arguments import add_policy, analyzed, command
from fxprune.cli.stages import stage
from fxprune.cli.target_options import add_target, target
from fxprune.latency.building import MINUTES
from fxprune.report.latency import table_report


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "table", _run, "measure how long layers take over their widths, for compress --latency")
    add_policy(made)
    made.add_argument("--out", required=True, metavar="FILE", help="the table, as JSON; one that is there is gone on "
                      "with")
    made.add_argument("--minutes", type=float, default=MINUTES, metavar="M", help="how long to measure (%(default)g)")
    made.add_argument("--step", type=int, metavar="N", help="the multiple that widths should be of; found by measuring "
                      "if left out")
    add_target(made)


def _run(options: argparse.Namespace) -> None:
    where = target(options)
    loaded, coupling = analyzed(options)
    with stage(f"measuring the layers of {options.model}"):
        table = fxprune.latency_table(coupling, loaded.model, where, path=options.out, minutes=options.minutes,
                                      step=options.step)
    print(f"{options.model}: {loaded.weights}\n\n{table_report(table, table.priced(coupling, loaded.model, False))}")
    print(f"\nwritten: {options.out}")
