"""Names that nobody would give, in every format: as text, and never as what they would do there."""

import csv
import io
import json
from html import unescape

import pytest
import torch
from torch import nn

import fxprune
from fxprune.artefacts.weights import write_weights
from fxprune.errors import FxpruneError, printable, unknown
from fxprune.report.html import render
from fxprune.report.quoting import csv_cell, html, markdown, plot_text
from fxprune.report.table import coupling_table

# What no graph can be written with.
BREAKS = ["two\nlines", "nul\0", '"quoted"', "back\\slash", "half\ud800"]
NAMES = [*BREAKS, "=1+1|<script>alert(1)</script>", "\x1b[31mred", "\u202eturned", "`code`",
         "[a](javascript:b)", "@cmd", "+cmd", "-cmd", "$x_", "*bold*", "__mine__", "# head", "</script>", "a&b;"]
# What may not be seen in any of them.
STEERS = "\x1b\0\ud800\u202e"


@pytest.fixture(scope="module", params=NAMES, ids=ascii)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def case(name):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(name, nn.Conv2d(3, 8, 3))
    model.add_module("b", nn.Conv2d(8, 4, 1))
    coupling = fxprune.analyze(model, torch.randn(1, 3, 8, 8))
    return model, coupling, fxprune.plan(coupling, model, channels=0.5)


def harmless(text):
    assert not set(text) & set(STEERS)
    return text


def test_text(name, case):
    coupling = case[1]
    shown = printable(name)
    report, words = harmless(coupling_table(coupling, width=400)), harmless(coupling.explain(name, "b"))
    assert shown in report and shown in words and len(words.splitlines()) == 4
    assert name == shown or name not in report


def test_markdown(name, case):
    text = harmless(case[1].report(format="md"))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({line.replace(r"\|", "").count("|") for line in table}) == 1
    assert markdown(name) in text and "<script" not in text


def test_csv(name, case):
    rows = list(csv.reader(io.StringIO(harmless(case[1].report(format="csv")))))
    assert len(rows) == 3 and {len(row) for row in rows} == {11}
    assert not any(cell.startswith(tuple("=+-@\t\r")) for row in rows for cell in row)
    assert rows[1][0].removeprefix("'") == printable(name)


def test_json_holds_the_name_itself(name, case):
    text = case[1].report(format="json")
    assert text.isascii() and json.loads(text)["groups"][0]["name"] == name


def test_page_and_notebook(name, case):
    _, coupling, plan = case
    page = render(coupling, plan, title=name)
    assert page.encode() and printable(name) in unescape(harmless(page)) and page.count("<script") == 2
    for shown in (coupling, plan):
        assert html(name) in harmless(shown._repr_html_())


def test_errors(name, case):
    model, coupling, plan = case
    for attempt in (lambda: fxprune.apply(nn.Sequential(nn.Linear(2, 2)), plan),
                    lambda: fxprune.plan(coupling, model, widths={f"{name}x": 3}), lambda: coupling.explain(name, "x")):
        with pytest.raises(FxpruneError) as error:
            attempt()
        assert printable(harmless(str(error.value))) == str(error.value)


def test_plans(name, case, tmp_path):
    case[2].save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text().isascii()
    assert fxprune.Plan.load(tmp_path / "plan.json") == case[2]


@pytest.mark.filterwarnings("ignore:fxprune.save left out")
def test_folders(name, case, tmp_path):
    """Written, or refused by name; never with a traceback."""
    model, _, plan = case
    if name in BREAKS:
        with pytest.raises(fxprune.UnsupportedError, match="cannot stand: it holds a quote, a backslash"):
            fxprune.apply(model, plan)
        return
    small = fxprune.apply(model, plan)
    folder = fxprune.save(small, tmp_path / "folder", title=name).folder
    assert harmless((folder / "report.md").read_text()).startswith(f"# {markdown(name)}\n")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fxprune.load(folder, model=model).eval()(x), small.eval()(x))


def test_half_a_character_is_not_written_to_a_file(tmp_path):
    """In module mode, where no graph stands in the way."""
    model = nn.Sequential()
    model.add_module("half\ud800", nn.Linear(2, 2))
    with pytest.raises(fxprune.InputError, match=r"'half\\ud800.weight' is not; rename it"):
        write_weights(model, tmp_path / "weights.safetensors", {})


def test_plots(name):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(plot_text(name))
    drawn = io.BytesIO()
    figure.savefig(drawn)
    assert drawn.getvalue().startswith(b"\x89PNG")


def test_long_names_cost_nothing():
    message = unknown("key", "x" * 10 ** 7, ["y"])
    assert len(message) < 200 and "x…'" in message


def test_numbers_stay_numbers():
    assert csv_cell(-1.5) == -1.5 and csv_cell("-1.5") == "'-1.5"
