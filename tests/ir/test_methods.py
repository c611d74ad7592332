"""Methods that later passes provide: one each, and all of them are there once fxprune is imported."""

import pytest

import fxprune
from fxprune.ir.methods import provided, provides


@pytest.mark.parametrize(("kind", "name"), [
    (fxprune.Coupling, "report"), (fxprune.Coupling, "to_html"), (fxprune.Plan, "from_widths"),
    (fxprune.Plan, "apply_to_optimizer"),
    *((kind, "_repr_html_") for kind in (fxprune.Coupling, fxprune.Plan, fxprune.Record, fxprune.Verification)),
])
def test_every_method_is_provided(kind, name):
    assert callable(provided(kind, name)) and callable(getattr(kind, name))


def test_a_method_is_provided_once():
    with pytest.raises(ValueError, match=r"Coupling.report is provided already, by fxprune.report.table"):
        provides(fxprune.Coupling, "report")(print)
    assert provided(fxprune.Coupling, "report") is not print
