"""Every way in which fxprune says no. A message states the constraint, what was received, and what to write instead."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

# Letters of a name that is not known, as far as a message shows it: it may come from a file.
SHOWN = 80


def printable(text: str, keep: str = "") -> str:
    r"""The text on one line, with backslashes for what is no letter but steers: escape sequences, line breaks, changes
    of direction, halves of characters.

    Args:
        text: as it came from a model or a file.
        keep: characters that stay as they are.

    >>> print(printable("a\x1b[31m\nb"))
    a\x1b[31m\nb
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class FxpruneError(Exception):
    """Base of all errors that fxprune raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class InputError(FxpruneError):
    """The model, its example inputs or an argument is not of the form that is needed."""


class CaptureError(FxpruneError):
    """The model could not be captured or run."""


class UnsupportedError(FxpruneError):
    """The model is of a kind that fxprune refuses by name (quantized, scripted, nothing to prune)."""


class BudgetError(FxpruneError):
    """The budget is malformed or cannot be reached."""


class PlanError(FxpruneError):
    """The plan is damaged, or does not belong to this model."""


class FormError(PlanError):
    """The model's own Python fixes what the plan cuts, so that no module of its class carries the plan out.

    Args:
        held: a node of the graph by its name, or a call by its number -> what it fixes, and where.
    """

    def __init__(self, held: Mapping[Any, str]):
        self.held = dict(held)
        found = list(dict.fromkeys(self.held.values()))
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        super().__init__(f"form=\"module\" keeps the model's Python, which fixes sizes that the plan cuts: "
                         f"{'; '.join(found[:3])}{more}. Draw the plan with fxprune.analyze(model, inputs, "
                         "form=\"module\"), or take form=\"graph\", which rewrites them")

    def __reduce__(self) -> Any:
        return type(self), (self.held,)


class VerificationError(FxpruneError):
    """The pruned module does not compute what the masked original computes; ``node`` is the first that differs."""

    node: str = ""

    @classmethod
    def at(cls, node: str, message: str) -> "VerificationError":
        """An error that names its node."""
        error = cls(message)
        error.node = node
        return error


class ArtefactError(FxpruneError):
    """A file of an artefact is missing, damaged, of another model, or holds what may not be trusted."""


class RuleError(FxpruneError):
    """An operator's rule failed, or fxprune's own Python that captures: a bug."""


class MeasurementError(FxpruneError):
    """A time could not be measured: too much noise, a runner that fails, a clock that runs backwards."""


class MissingExtraError(FxpruneError):
    """A feature needs a package that is not installed."""


def unknown(kind: str, received: object, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest names.

    >>> unknown("criterion", "l3", ["l1", "l2", "bn_scale"])
    "unknown criterion 'l3'; did you mean 'l1', 'l2'? Known: 'bn_scale', 'l1', 'l2'"
    """
    known = sorted(known)
    if isinstance(received, str) and len(received) > SHOWN:
        received = f"{received[:SHOWN]}…"
    near = difflib.get_close_matches(str(received), known, n=3, cutoff=0.4)
    hint = f"; did you mean {', '.join(map(repr, sorted(near)))}?" if near else ";"
    listed = ", ".join(map(repr, known[:12])) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return f"unknown {kind} {received!r}{hint} Known: {listed or 'none'}"
