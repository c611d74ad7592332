"""What the voters of each group would give up, and what comes of it under each rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from fxprune.errors import InputError, unknown
from fxprune.ir.costs import Costs
from fxprune.planning.shortfall import beyond
from fxprune.planning.vote import vote

NAMES = ("intersection", "majority", "joint", "union")


@dataclass(frozen=True, eq=False)
class Ballots:
    """One group's votes.

    Args:
        group: its name.
        voters: the voters' layers.
        norms: float64 [voters, channels], each voter's norm of each channel.
        threshold: a voter gives a channel up if its norm is below.
        min_channels: the fewest channels that any rule may keep.
    """

    group: str
    voters: tuple[str, ...]
    norms: np.ndarray
    threshold: float
    min_channels: int = 1

    @property
    def size(self) -> int:
        return int(self.norms.shape[1])

    @property
    def given_up(self) -> np.ndarray:
        """bool [voters, channels]."""
        return self.norms < self.threshold

    @property
    def lost(self) -> int:
        """Channels that at least one voter gives up and that the intersection cannot remove."""
        return int(self.given_up.any(axis=0).sum() - self.given_up.all(axis=0).sum())

    def kept(self, rule: str) -> np.ndarray:
        """The channels that stay under a rule, ascending: at least ``min_channels``, the strongest if all would go."""
        score = vote(self.norms, rule)
        count = max(int((score >= self.threshold).sum()), min(self.min_channels, self.size))
        return np.sort(np.argsort(score, kind="stable")[self.size - count:])

    def spared(self, rule: str) -> int:
        """How many channels stay only because a group may not be emptied."""
        return len(self.kept(rule)) - int((vote(self.norms, rule) >= self.threshold).sum())


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of every group that is penalised; made by `DWGL.votes`.

    Args:
        ballots: group name -> `Ballots`.
        costs: the coupling's cost model.
        widths: the present widths, int64 [G], in the order of ``costs.groups``.
    """

    ballots: Mapping[str, Ballots]
    costs: Costs
    widths: np.ndarray

    def __getitem__(self, group: str) -> Ballots:
        if group not in self.ballots:
            raise InputError(unknown("group", group, self.ballots))
        return self.ballots[group]

    def kept(self, rule: str) -> dict[str, np.ndarray]:
        """Group name -> the channels that stay under ``"intersection"``, ``"majority"``, ``"joint"`` or ``"union"``."""
        return {name: ballots.kept(rule) for name, ballots in self.ballots.items()}

    def fraction(self, rule: str, cost: str = "macs") -> float:
        """The fraction of ``"macs"`` or ``"params"`` that is left under a rule."""
        kept = {name: len(channels) for name, channels in self.kept(rule).items()}
        widths = np.array([kept.get(name, width) for name, width in zip(self.costs.groups, self.widths, strict=True)])
        count = getattr(self.costs, cost)
        return float(count(widths) / max(count(self.widths), 1))

    def beyond(self, kept: Mapping[str, Sequence[int] | np.ndarray]) -> dict[str, int]:
        """Group name -> how many channels go that some voter holds on to, where ``kept`` (group name -> the channels
        that stay) is carried out; groups without any are left out."""
        return beyond(self.agreed, kept)

    @property
    def agreed(self) -> dict[str, np.ndarray]:
        """Group name -> bool [channels], which of them all voters give up."""
        return {name: np.all(ballots.given_up, axis=0) for name, ballots in self.ballots.items()}

    def report(self, format: str = "simple") -> str:
        """Two tables: per group, what each voter gives up and what each rule makes of it; then what each rule prunes.

        Args:
            format: one of tabulate's (``"simple"``, ``"github"``, …).
        """
        notes = {name: self._note(b) for name, b in self.ballots.items()}
        noted = any(notes.values())
        headers = ["group", "channels", "voter", "gives up", *NAMES, "intersection loses", *(["note"] if noted else [])]
        rows = []
        for name, b in self.ballots.items():
            each = b.given_up.sum(axis=1)
            counts = [b.size - len(b.kept(rule)) for rule in NAMES]
            rows.append([name, b.size, b.voters[0], each[0], *counts, b.lost, *([notes[name]] if noted else [])])
            rows += [["", "", voter, count] for voter, count in zip(b.voters[1:], each[1:], strict=True)]
        total = [sum(b.size - len(b.kept(rule)) for b in self.ballots.values()) for rule in NAMES]
        summary = [[rule, count, f"{1 - self.fraction(rule):.2%}", f"{1 - self.fraction(rule, 'params'):.2%}"]
                   for rule, count in zip(NAMES, total, strict=True)]
        tables = (tabulate(rows, headers, tablefmt=format, missingval=""),
                  tabulate(summary, ("vote", "channels pruned", "MACs pruned", "parameters pruned"), tablefmt=format,
                           disable_numparse=True))
        return "\n\n".join(tables)

    def _note(self, ballots: Ballots) -> str:
        spared = {rule: ballots.spared(rule) for rule in NAMES}
        rules = [rule for rule in NAMES if spared[rule] > 0]
        if not rules:
            return ""
        return f"{', '.join(rules)}: all would go, {min(ballots.min_channels, ballots.size)} kept"

    def __repr__(self) -> str:
        gone = {rule: sum(b.size - len(b.kept(rule)) for b in self.ballots.values()) for rule in NAMES}
        return f"Votes({', '.join(f'{rule} {count}' for rule, count in gone.items())})"
