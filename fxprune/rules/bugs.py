"""A rule that raises is a bug: in the rule, or in what it was written for.

Users get a result that is right all the same: what reaches the operator is frozen, and reports call that a bug, with
the operator, the source line and the exception. Whoever works on rules wants the error itself: `raise_bugs`, which the
tests of this project call.
"""

from dataclasses import dataclass

from fxprune.errors import RuleError


class Bug(str):
    """A reason to freeze that reports call a bug."""


@dataclass
class _Settings:
    raised: bool = False


_settings = _Settings()
OWN = ("aten::", "torchvision::", "operator::")


def raise_bugs(raised: bool = True) -> bool:
    """Whether a rule that fails is an error from now on, in this process; gives what it was before."""
    before, _settings.raised = _settings.raised, raised
    return before


def failed(op: str, part: str, source: str, why: Exception | str) -> RuleError:
    """The error for a part of an operator's rule (``"rule"``, ``"literals"``, ``"shrink"``) that raised, or did what
    it must not.

    >>> print(failed("aten::glu", "rule", "net.py:7", KeyError(3)))
    a bug: the rule of aten::glu raised KeyError: 3 (at net.py:7); please report it to fxprune, with that line
    >>> print(failed("mylib::gate", "rule", "", "gave no vectors"))
    a bug: the rule of mylib::gate gave no vectors; please report it to whoever registered it
    """
    what = why if isinstance(why, str) else f"raised {type(why).__name__}: {why}"
    whom = "fxprune, with that line" if op.startswith(OWN) else "whoever registered it"
    return RuleError(f"a bug: the {part} of {op} {what}{f' (at {source})' if source else ''}; please report it to "
                     f"{whom}")


def frozen_by(error: RuleError) -> Bug:
    """The reason for the freeze that a rule's failure ends in; where bugs are to be raised, the error itself."""
    if _settings.raised:
        raise error
    return Bug(error)
