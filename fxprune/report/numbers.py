"""Numbers as people read them."""

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


def percent(share: float) -> str:
    """A share of one, with one decimal.

    >>> percent(0.5), percent(0.00004), percent(0), percent(1)
    ('50.0 %', '<0.1 %', '0 %', '100.0 %')
    """
    if share == 0:
        return "0 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 else "<0.1 %"
