"""The options of commands that read data: batches, a loss, how many samples, and what makes up for a cut."""

import argparse
from typing import Any

from fxprune.errors import InputError
from fxprune.models.named import imported
from fxprune.planning.batches import SAMPLES
from fxprune.rewrite.recovery import METHODS


def add_data(command: argparse.ArgumentParser) -> None:
    """The options."""
    command.add_argument("--data", metavar="FILE.py:NAME", help="batches of inputs, or (inputs, labels): an iterable, "
                         "or a function that returns one; for criteria that read data, and for --recover")
    command.add_argument("--loss", metavar="FILE.py:NAME", help="a function (model, batch) -> scalar for criteria that "
                         "read gradients; inferred if left out")
    command.add_argument("--samples", type=int, default=SAMPLES, metavar="N",
                         help="read no more samples of the data (%(default)s)")
    command.add_argument("--recover", choices=METHODS, help="make up for what was cut, from data, without training")


def data_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options as `fxprune.compress` takes them."""
    return {"data": None if options.data is None else _batches(options.data),
            "loss": None if options.loss is None else imported(options.loss, "--loss"),
            "samples": options.samples, "recover": options.recover}


def _batches(name: str) -> Any:
    found = imported(name, "--data")
    if not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        raise InputError(f"--data must be an iterable of batches, or a function without arguments that returns one, "
                         f"and calling {name!r} raised {type(error).__name__}: {error}") from error
