"""The user's choices where a dimension could be cut in two ways."""

from dataclasses import dataclass

from fxprune.errors import InputError

# What a `Policy` may say of each, the default first.
POLICIES = {"heads": ("dims", "whole"), "grouped": ("within", "whole"), "form": ("graph", "module")}


@dataclass(frozen=True)
class Policy:
    """Choices where a dimension is split in two and both factors could carry channels.

    Args:
        heads: ``"dims"`` prunes the same positions inside every attention head (and keeps their number), ``"whole"``
            removes whole heads.
        grouped: ``"within"`` prunes the same positions inside every convolution or normalisation group, ``"whole"``
            removes whole groups.
        form: ``"graph"`` or ``"module"``: the form that every plan can be carried out in. In a module of the model's
            own class what its Python fixes is frozen; in a graph it is rewritten.

    Where the first choice turns out to be frozen, the other is tried.

    Raises:
        InputError: another word than these.
    """

    heads: str = POLICIES["heads"][0]
    grouped: str = POLICIES["grouped"][0]
    form: str = POLICIES["form"][0]

    def __post_init__(self) -> None:
        for name, words in POLICIES.items():
            if getattr(self, name) not in words:
                first, second = words
                raise InputError(f"Policy({name}=) must be {first!r} or {second!r}, got {getattr(self, name)!r}; "
                                 f"write Policy({name}={first!r})")
