"""How much goes, and where: the arguments of `fxprune.plan` as options."""

import argparse
from collections.abc import Sequence
from typing import Any

from fxprune.errors import InputError
from fxprune.planning.branch_scores import COSINE, DEPTH_WISE
from fxprune.planning.criteria import CRITERIA
from fxprune.planning.scopes import PRICES, SCOPES
from fxprune.planning.vote import VOTES

BUDGETS = ("macs", "params", "channels", "threshold", "widths", "latency", "latency_ms")


def add_cut(command: argparse.ArgumentParser) -> None:
    """The options."""
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
    command.add_argument("--depth", type=_depth, metavar="FRACTION", help="the fraction of residual branches to keep, "
                         "the others go whole; or auto, branches and channels from one list, within --macs or --params")
    command.add_argument("--depth-criterion", choices=sorted({*CRITERIA, DEPTH_WISE, COSINE}), help="how branches are "
                         "scored; by --criterion if left out")
    command.add_argument("--groups", action="append", metavar="NAME", help="cut only this group, or the groups of "
                         "layers that match this pattern; repeat it for several")
    command.add_argument("--ignore", action="append", default=[], metavar="NAME", help="leave the channels of this "
                         "module, or of modules that match this pattern, as they are; repeat it for several")


def cut_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options as `fxprune.plan` takes them."""
    budget = {kind: value for kind in BUDGETS if (value := getattr(options, kind, None)) is not None}
    if options.widths:
        budget["widths"] = dict(map(_width, options.widths))
    if options.channels:
        budget["channels"] = _channels(options.channels)
    return {**budget, "criterion": options.criterion, "vote": options.vote, "scope": options.scope,
            "round_to": options.round_to, "min_channels": options.min_channels, "groups": options.groups or "auto",
            "ignore": tuple(options.ignore), "uniform": options.uniform, "per": options.per,
            "depth": options.depth, "depth_criterion": options.depth_criterion}


def _depth(text: str) -> float | str:
    """``--depth`` as `fxprune.plan` takes it.

    >>> _depth("auto"), _depth("0.75")
    ('auto', 0.75)
    """
    return text if text == "auto" else float(text)


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
