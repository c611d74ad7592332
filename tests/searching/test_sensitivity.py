"""One unit at a time: the grid is covered once, whoever begins it, and the worst unit is named."""

import pytest
import torch
from fixed_widths import Even

import fxprune
from fxprune.errors import InputError


def test_every_unit_is_cut_alone_at_every_share(net, coupling, nearness, tmp_path):
    found = fxprune.sensitivity(net, coupling, nearness, kept=(0.25, 0.5))
    assert set(found.values) == {"layer1.0", "layer1.2", "layer2.0", "layer2.2"} and found.whole == 0.0
    assert all(list(curve) == [0.5, 0.25] for curve in found.values.values())
    for unit, curve in found.values.items():
        for share, value in curve.items():
            small = fxprune.compress(net, torch.zeros(2, 6), channels={unit: share}, verify=False)
            assert value == nearness(small), (unit, share)
    lines = found.report().splitlines()
    worst = min(found.values, key=lambda unit: min(found.values[unit].values()))
    assert lines[-1].startswith(worst) and lines[0].startswith("whole: -0")
    pytest.importorskip("matplotlib")
    drawn = found.plot(tmp_path / "curves.png")
    curve = next(line for line in drawn.axes[0].lines if line.get_label() == worst)
    assert list(curve.get_ydata()) == [0.0, *found.values[worst].values()]
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_it_goes_on_where_it_was_and_stages_are_cut_together(net, coupling, nearness, tmp_path):
    options = {"kept": (0.5,), "by": "stage", "study": "s", "storage": f"sqlite:///{tmp_path}/s.db"}
    ran = []

    def stops(small):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(small)
        return nearness(small)

    with pytest.raises(KeyboardInterrupt):
        fxprune.sensitivity(net, coupling, stops, **options)
    again = []
    found = fxprune.sensitivity(net, coupling, lambda small: again.append(1) or nearness(small), **options)
    assert set(found.values) == {"layer1", "layer2"} and len(ran) == 2 and len(again) == 1


def test_bad_input(net, coupling, nearness):
    for kept in ((), 0.5, (1.0,), (0.5, "x")):
        with pytest.raises(InputError, match="kept must list shares"):
            fxprune.sensitivity(net, coupling, nearness, kept=kept)
    with pytest.raises(InputError, match="unknown unit"):
        fxprune.sensitivity(net, coupling, nearness, by="layer")


def test_what_the_models_python_fixes_stays_whole():
    torch.manual_seed(0)
    net, x = Even().eval(), torch.randn(4, 6)
    seen = []
    found = fxprune.sensitivity(net, fxprune.analyze(net, x, form="module"), lambda small: seen.append(small) or 0.0,
                                kept=(0.5, 0.4))
    assert list(found.values) == ["into", "mid"] and {type(small) for small in seen} == {Even}
    widths = [(small.into.out_features, small.mid.out_features) for small in seen]
    assert sorted(widths) == [(6, 16), (12, 7), (12, 8), (12, 16), (12, 16)]  # 5 of 12 would be odd
