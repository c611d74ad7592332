"""``fxprune bench ORIGINAL SMALL``: the MACs ratio beside the measured one.

Each is a model by name, or a folder that `fxprune.save` wrote. A folder beside ORIGINAL's name is its plan carried out
on that model; any other folder is run as its exported program, which is code, and so only with ``--trust``.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

from fxprune.api import apply
from fxprune.artefacts.loading import plan_of, program_of
from fxprune.cli.model_arguments import built, command, example
from fxprune.cli.side_by_side import MODULE, PROGRAM, Bench, bench
from fxprune.cli.stages import stage
from fxprune.errors import InputError
from fxprune.latency.clock import Latency
from fxprune.models.named import FORMS, load
from fxprune.report.numbers import si

FORMATS = ("text", "json")
PLAN = "plan.json"


def add(commands: Any) -> None:
    """The command and its options."""
    made = command(commands, "bench", _run, "time a model and a smaller one in turns, beside their MACs",
                   f"{FORMS}; or a folder that compress --out wrote")
    made.add_argument("small", metavar="SMALL", help="another MODEL, or a folder that compress --out wrote: its "
                      "plan is applied to MODEL, where that is no folder itself")
    made.add_argument("--batch", type=int, metavar="N", help="batch size; that of the example inputs if left out")
    made.add_argument("--repeats", type=int, default=50, metavar="N", help="timed passes of each (%(default)s)")
    made.add_argument("--warmup", type=int, default=10, metavar="N", help="passes before these (%(default)s)")
    made.add_argument("--threads", type=int, metavar="N", help="of PyTorch on the CPU; as they are set if left out")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    made.add_argument("--channels-last", action="store_true", help="weights and images channels-last in memory")
    made.add_argument("--compile", action="store_true", help="measure torch.compile of both")
    made.add_argument("--format", choices=FORMATS, default="text")
    made.add_argument("--trust", action="store_true", help="run the programs in folders: whoever wrote them may run "
                      "code here")


def table(found: Bench) -> str:
    """Counted and measured ratios, one below the other."""
    measured, numbers = found.measured, (found.macs, found.params)
    rows = [(name, si(a), si(b), f"{a / b:.2f}×" if b else "") for name, (a, b) in
            zip(("MACs", "parameters"), numbers, strict=True)]
    low, high = measured.spread
    rows.append(("time, median", _ms(measured.original), _ms(measured.small), f"{measured.ratio:.2f}×"))
    rows.append(("time, quartiles", _range(measured.original), _range(measured.small), f"{low:.2f} – {high:.2f}×"))
    head = ("", "original", "small", "ratio")
    text = tabulate(rows, head, tablefmt="simple", colalign=("left", "right", "right", "right"), disable_numparse=True)
    kinds = "" if found.kinds == (MODULE, MODULE) else f"\n{found.kinds[0]} against {found.kinds[1]}"
    return f"{text}\n\n{measured.small.setting}, in turns; inputs: {found.inputs}{kinds}"


def _run(options: argparse.Namespace) -> None:
    """Build both, time both, print the table."""
    with stage(f"building {options.model} and {options.small}"):
        (original, first), (small, second) = _models(options)
    inputs: Any = example(options.inputs)
    if inputs is None:
        inputs = next((plan_of(name).inputs for name in (options.model, options.small) if _is_folder(name)), None)
    with stage(f"timing {options.model} and {options.small}"):
        found = bench(original, small, inputs, batch=options.batch, device=options.device, repeats=options.repeats,
                      channels_last=options.channels_last, compiled=options.compile, warmup=options.warmup,
                      threads=options.threads)
    found = replace(found, kinds=(first, second))
    print(json.dumps(asdict(found), indent=2) if options.format == "json" else table(found))


def _models(options: argparse.Namespace) -> tuple[tuple[nn.Module, str], tuple[nn.Module, str]]:
    """Both models, and what each one is."""
    if _is_folder(options.model):
        if options.weights:
            raise InputError(f"--weights are for a model by name, but {options.model!r} is a folder with its own; "
                             "leave --weights out")
        return _other(options.model, options), _other(options.small, options)
    original = _named(options.model, lambda: built(options).model)
    if not _is_folder(options.small):
        return (original, MODULE), _other(options.small, options)
    # Times do not depend on which channels were the best ones, nor on what was trained since.
    return (original, MODULE), (apply(original, plan_of(options.small), weights="any", verify=False), MODULE)


def _other(name: str, options: argparse.Namespace) -> tuple[nn.Module, str]:
    if _is_folder(name):
        return program_of(name, options.trust), PROGRAM
    return _named(name, lambda: load(name, None, options.seed, num_classes=options.num_classes).model), MODULE


def _is_folder(name: str) -> bool:
    return (Path(name) / PLAN).is_file()


def _named(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except InputError:
        if not Path(name).is_dir():
            raise
        raise InputError(f"both places must hold a MODEL or a folder with a {PLAN}, and {name!r} has none; write it "
                         f"with fxprune compress MODEL --out {name}") from None


def _ms(latency: Latency) -> str:
    return f"{1000 * latency.median:.3g} ms"


def _range(latency: Latency) -> str:
    low, high = latency.spread
    return f"{1000 * low:.3g} – {1000 * high:.3g}"
