"""What a verification found."""

from dataclasses import dataclass, field

from fxprune.ir.methods import provided
from fxprune.verification.input_dimensions import InputDimension


@dataclass(frozen=True)
class Verification:
    """A pruned module held against the masked original.

    Args:
        max_error: the difference that came closest to what was allowed, relative to the largest magnitude of the tensor
            that it is in.
        nodes: how many values were compared, over all runs.
        worst: the node with that difference (``"output"`` where only outputs are compared).
        tolerance: what was allowed there.
        dtype: the precision of the comparison.
        runs: what was run: ``("eval", 1)`` is eval mode at batch size 1.
        notes: what could not be compared, and why.
        shapes: of the input tensors, in each of these runs.
        claimed: the modes that the result has; in any other it refuses to run, or (module mode) is not known.
        dimensions: which dimensions of the inputs are free, and which are fixed.
    """

    max_error: float
    nodes: int
    worst: str
    tolerance: float
    dtype: str
    runs: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = field(default=(), repr=False)
    claimed: tuple[str, ...] = ()
    dimensions: tuple[InputDimension, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether all was equal, in every mode that the result has."""
        return self.max_error <= self.tolerance and set(self.claimed) <= {mode for mode, _ in self.runs}

    def _repr_html_(self) -> str:
        return str(provided(Verification, "_repr_html_")(self))

    def __str__(self) -> str:
        runs = ", ".join(f"{mode} at batch {batch}" for mode, batch in self.runs)
        never = [mode for mode in self.claimed if mode not in dict(self.runs)]
        return (f"verified: {self.nodes} values compared in {self.dtype} ({runs}), largest relative difference "
                f"{self.max_error:.1e} at {self.worst!r}{'; not compared: ' if never else ''}{', '.join(never)}")
