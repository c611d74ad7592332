"""Numbers and names as people read them."""

# Letters of a name, however little room there is.
SHORTEST = 7
_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def si(count: float) -> str:
    """Three significant digits and a unit.

    >>> [si(n) for n in (4089184256, 25557032, 1000, 999, 0)]
    ['4.09 G', '25.6 M', '1 k', '999', '0']
    """
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def ending(name: str, letters: int) -> str:
    """The end of a name, which tells it from its neighbours, where there is no room for all of it.

    >>> ending("layer4.2.conv3", 8), ending("conv1", 8)
    ('…2.conv3', 'conv1')
    """
    letters = max(letters, SHORTEST)
    return name if len(name) <= letters else f"…{name[1 - letters:]}"


def percent(share: float) -> str:
    """A share of one, with one decimal.

    >>> percent(0.5), percent(0.00004), percent(0), percent(1)
    ('50.0 %', '<0.1 %', '0 %', '100.0 %')
    """
    if share == 0:
        return "0 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 else "<0.1 %"
