"""What a notebook and a console show of the four values that users hold in their hands."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import fxprune


class Tags(HTMLParser):
    """Every tag that is opened is closed, and nothing but text and tables is in it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def small():
    net = nn.Sequential(*(layer for _ in range(16) for layer in (nn.Conv2d(4, 4, 1), nn.ReLU())), nn.Conv2d(4, 2, 1))
    return fxprune.compress(net, torch.randn(1, 4, 4, 4), channels=0.5)


@pytest.mark.parametrize(("pick", "words"), [
    (lambda r: r.coupling, ["17 coupling groups, 16 prunable", "consumers", "model output"]),
    (lambda r: r.plan, ["tensors cut", "share", "50.0 %", "budget channels=0.5, criterion l2"]),
    (lambda r: r, ["graph mode; verified:", "parameters", "widths of 17 layers"]),
    (lambda r: r.verification, ["verified", "tolerance", "eval at batch 1", "input[2] free (4, 5)"]),
])
def test_html(small, pick, words):
    value = pick(fxprune.record(small))
    page = Tags(value._repr_html_())
    assert not page.open and page.seen <= {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td", "details",
                                           "summary"}
    for word in words:
        assert word in " ".join(page.text), word
    assert len(repr(value)) < 400


def test_repr_of_a_record(small):
    record = fxprune.record(small)
    assert repr(record).startswith("Record(") and repr(record).endswith("graph mode, verified)")
    assert "not verified" in repr(replace(record, verification=None))
    assert "not verified" in replace(record, verification=None)._repr_html_()


def test_names_are_escaped():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<b>", nn.Conv2d(3, 4, 1))
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(getattr(self, "<b>")(x))

    html = fxprune.analyze(Net(), torch.randn(1, 3, 4, 4))._repr_html_()
    assert "&lt;b&gt;" in html and "<td><b>" not in html


def test_what_failed_is_said():
    found = fxprune.Verification(1.0, 3, "conv", 1e-9, "float64", (("eval", 1),), ("one note",))
    assert "not equal" in found._repr_html_() and "one note" in found._repr_html_()
