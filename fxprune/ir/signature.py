"""The structure of a model: what its parameters and buffers are called, their shapes and dtypes."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Signature:
    """The model's structure: name, shape and dtype of every parameter and buffer, in ``state_dict`` order."""

    entries: tuple[tuple[str, tuple[int, ...], str], ...]

    def difference(self, other: "Signature") -> str | None:
        """The first difference in words, or None."""
        mine, theirs = {e[0]: e[1:] for e in self.entries}, {e[0]: e[1:] for e in other.entries}
        for name in [*mine, *theirs]:
            if mine.get(name) != theirs.get(name):
                return f"{name!r} is {_words(mine.get(name))} here and {_words(theirs.get(name))} there"
        return None


def _words(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if entry is None else f"{list(entry[0])} {entry[1]}"


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name without the ``torch.`` prefix."""
    return str(dtype).removeprefix("torch.")
