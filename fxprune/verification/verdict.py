"""What a verification found."""

from dataclasses import dataclass

from fxprune.ir.methods import provided


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
    """

    max_error: float
    nodes: int
    worst: str
    tolerance: float
    dtype: str
    runs: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.max_error <= self.tolerance

    def _repr_html_(self) -> str:
        return str(provided(Verification, "_repr_html_")(self))

    def __str__(self) -> str:
        runs = ", ".join(f"{mode} at batch {batch}" for mode, batch in self.runs)
        return (f"verified: {self.nodes} values compared in {self.dtype} ({runs}), largest relative difference "
                f"{self.max_error:.1e} at {self.worst!r}")
