"""Trace a model once more, as it was captured: with attributes that say where they came from, or after it has shrunk.

Nothing is dropped, so that the calls of two such runs can be held against each other from the first on, and a run that
ends early tells how far it came.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fxprune.capture.capturing import Captured, introduce
from fxprune.capture.contexts import compiling
from fxprune.capture.memoised import fresh_caches
from fxprune.capture.observer import Observer
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.sizes import Book
from fxprune.capture.skipping import Draws
from fxprune.capture.structure import isolated_copy, structural_copy
from fxprune.capture.traced import Traced
from fxprune.capture.tracer import Tracer
from fxprune.ir import example_inputs


@dataclass(frozen=True, eq=False)
class Rerun:
    """One more run.

    Args:
        traced: all of its calls, dead ones included, up to where it ended.
        error: what was raised there, or None.
    """

    traced: Traced
    error: Exception | None = None


def retraced(model: nn.Module, captured: Captured, mode: str, device: torch.device,
             prepare: Callable[[nn.Module, Book], None] = lambda root, book: None) -> Rerun:
    """Run a copy of ``model`` on the example inputs of a capture, and trace it.

    Args:
        model: is not changed.
        captured: says how: on which inputs, and whether on true tensors.
        mode: ``"eval"`` or ``"train"``.
        device: where the model's Python is told to be.
        prepare: changes the copy before it runs.
    """
    observer = Observer(captured.real, finite=mode == "train", draws=Draws())
    root, contents = (isolated_copy(model), {}) if captured.real else structural_copy(model)
    root.train(mode == "train")
    args, kwargs = example_inputs.realise(captured.inputs, device if captured.real else "meta",
                                          torch.Generator().manual_seed(0))
    introduce(observer, root, contents, (args, kwargs))
    tracer = Tracer(root, observer, device)
    prepare(root, tracer.book)
    with untouched_rng(), fresh_caches(model), compiling(bool(captured.eager)):
        try:
            return Rerun(tracer.trace(args, kwargs))
        except Exception as error:
            done = Rerun(tracer.traced(), error)
    tracer.book.close()
    return done
