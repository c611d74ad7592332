"""What a graph took for granted about its arguments, as statements that need nothing of fxprune."""

from collections.abc import Iterable, Iterator
from typing import Any

from fxprune.artefacts.source_values import literal
from fxprune.capture.constant_arguments import ITEMS, KEYS, OBJECT, TENSOR, should_be, was
from fxprune.errors import UnsupportedError

_BUILTINS = (bool, int, float, complex, str, bytes)


def assertions(name: str, value: str, want: Any, left_out: bool) -> Iterator[str]:
    """Refuse whatever is not as captured.

    Args:
        name: of the argument, with its stars.
        value: the expression for it.
        want: the pattern of what it was.

    Raises:
        UnsupportedError: it was an object of some class.

    >>> print(*assertions("scale", "scale", 2.0, False), sep="\\n")
    if type(scale) is not float or scale != 2.0:
        raise ValueError('captured with scale=2.0, which is a constant now; pass scale=2.0')
    """
    for place, test, wanted in _tests(name.lstrip("*"), value, want):
        place, wanted = (name.lstrip("*"), None) if left_out else (place, wanted)
        words = f"captured {was(place, wanted)}; {should_be(place, wanted)}"
        yield f"if {test}:\n    raise ValueError({words!r})"


def _tests(place: str, value: str, want: Any) -> Iterator[tuple[str, str, Any]]:
    """What an item is called, the condition under which it is refused, and its pattern."""
    if want is None:
        yield place, f"{value} is not None", want
    elif type(want) is not tuple:
        kind = f"type({value}) is not {type(want).__name__} or " if isinstance(want, _BUILTINS) else ""
        yield place, f"{kind}{value} != {literal(want)}" if want == want else f"{value} == {value}", want
    elif want[0] == OBJECT:
        raise UnsupportedError(f"standalone source cannot ask whether {place} is a {want[1]}")
    elif want[0] == TENSOR:
        yield place, f"not isinstance({value}, torch.Tensor)", want
    elif len(want) == 1 or want == (KEYS, ()):
        yield place, value, want
    elif want[0] == ITEMS:
        yield place, f"len({value}) != {len(want) - 1}", want
        yield from _each(place, value, range(len(want) - 1), want[1:])
    else:
        yield place, f"set({value}) != {{{', '.join(map(literal, want[1]))}}}", want
        yield from _each(place, value, want[1], want[2:])


def _each(place: str, value: str, keys: Iterable[Any], wanted: Iterable[Any]) -> Iterator[tuple[str, str, Any]]:
    for key, want in zip(keys, wanted, strict=True):
        yield from _tests(f"{place}[{key!r}]", f"{value}[{literal(key)}]", want)
