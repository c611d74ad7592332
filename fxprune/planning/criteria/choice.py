"""Which criterion a plan is drawn by, and how its scores are compared, where the user leaves that open."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxprune.ir.groups import CARRIER
from fxprune.planning.criteria.registry import Criterion, described, resolve
from fxprune.planning.scopes import PRICES

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

# How plans begin to say what was chosen.
AUTO = "auto: "


@dataclass(frozen=True)
class Choice:
    """A criterion, what plans say of it, and how scores are compared across groups."""

    criterion: Criterion
    said: str
    scope: str
    per: str | None


def chosen(coupling: "Coupling", criterion: str | Criterion, scope: str | None, per: str | None, data: object,
           budget: str) -> Choice:
    """The choice that the arguments of a call come to.

    Args:
        criterion: a name, an object, or ``"auto"``.
        scope, per: as given, None where they were not.
        data: whether there is any.
        budget: what is counted: ``"macs"``, ``"params"``, …
    """
    if criterion != "auto":
        return Choice(resolve(criterion), described(criterion), "global" if scope is None else scope, per)
    if data is None:
        name = "expected" if _has_norms(coupling) else "l2"
        return Choice(resolve(name), AUTO + name, "global" if scope is None else scope, per)
    # Damage is the same in all groups, and so is what it buys.
    priced = budget if scope is None and per is None and budget in PRICES else per
    return Choice(resolve("taylor"), f"{AUTO}taylor", "absolute" if scope is None else scope, priced)


def _has_norms(coupling: "Coupling") -> bool:
    return any(member.role == CARRIER and member.name.endswith(".running_var")
               for group in coupling.prunable.values() for member in group.members)
