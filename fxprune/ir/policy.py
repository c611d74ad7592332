"""The user's choices: where a dimension could be cut in two ways, and what is held."""

from collections.abc import Iterable
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
        outputs: names of the outputs that keep their size (``"logits"``, ``"0"`` of a tuple, ``"past_key_values"`` for
            all that lies in it, ``"output"`` for a single tensor); all do where None. The others may shrink.

    Where the first choice turns out to be frozen, the other is tried.

    Raises:
        InputError: another word than these.

    >>> Policy(outputs=(0, "logits")).outputs
    ('0', 'logits')
    """

    heads: str = POLICIES["heads"][0]
    grouped: str = POLICIES["grouped"][0]
    form: str = POLICIES["form"][0]
    outputs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.outputs is not None:
            if isinstance(self.outputs, str) or not isinstance(self.outputs, Iterable):
                raise InputError(f"outputs must be a list of names, got {self.outputs!r}; write outputs=['logits']")
            object.__setattr__(self, "outputs", tuple(map(str, self.outputs)))
        for name, words in POLICIES.items():
            if getattr(self, name) not in words:
                first, second = words
                raise InputError(f"Policy({name}=) must be {first!r} or {second!r}, got {getattr(self, name)!r}; "
                                 f"write Policy({name}={first!r})")

    def holds(self, output: str) -> bool:
        """Whether the output of this name keeps its size."""
        return self.outputs is None or any(output == name or output.startswith(f"{name}.") for name in self.outputs)
