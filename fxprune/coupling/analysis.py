"""What the passes of the compiler hand on: the captured graphs, and the coupling that was found on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fxprune.capture.capturing import Captured
from fxprune.coupling.coupling import Coupling
from fxprune.coupling.view import View
from fxprune.ir.branches import Skipped


@dataclass(frozen=True, eq=False)
class Analysis:
    """A coupling, with the graphs that only the compiler needs.

    Args:
        captured: graphs over a structural copy of the model, and their tapes.
        coupling: what users see, and what the plan is drawn on.
    """

    captured: Captured
    coupling: Coupling

    def views(self, kept: Mapping[str, Iterable[int]], branches: Iterable[str] = ()) -> list[View]:
        """Every distinct graph under a plan, that of evaluation first; ``kept`` maps groups to the channels that stay,
        ``branches`` names those that go."""
        gone = [self.coupling.branches[name] for name in branches]
        lost = self.coupling.lost(kept)
        evidence = self.coupling.evidence
        return [View(traced, evidence, dims, lost, Skipped.of(gone, number))
                for number, (traced, dims) in enumerate(zip(self.captured.traced, evidence.dims, strict=True))]
