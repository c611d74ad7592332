"""The page: what it holds, and (where there is a browser) that it works."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
import torchvision
from report_nets import branches
from torch import nn

from fxprune import analyze
from fxprune.errors import InputError
from fxprune.planning.draw import plan
from fxprune.report.drawing import INPUT, LAYER, OPERATOR, OUTPUT, drawing
from fxprune.report.html import render, to_html
from fxprune.report.layout import places

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def coupling():
    return branches()


@pytest.fixture(scope="module")
def page(coupling):
    return render(coupling, title="a net")


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


class Balance(HTMLParser):
    """Every tag that is opened is closed."""

    void = {"meta", "link", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.addresses == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_page_holds_the_groups(page, coupling):
    data = data_of(page)
    assert [group["name"] for group in data] == list(coupling.groups)
    first = data[0]
    assert first["members"]["producer"] == ["conv1.weight[0]", "conv2.weight[0]"]
    assert len(first["ties"]) == 1 and first["ties"][0].startswith("add  add at ")
    assert data[-1]["frozen"] == "model output" and data[-1]["hue"] is None
    assert "lost.weight" in page


def test_widths_under_a_plan():
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    coupling = analyze(model)
    drawn = plan(coupling, model, channels=0.25)
    data = {group["name"]: group for group in data_of(render(coupling, drawn))}
    assert (data["conv1"]["before"], data["conv1"]["after"]) == (64, 16)
    assert (data["fc"]["before"], data["fc"]["after"]) == (1000, 1000)
    assert "64 → 16" in render(coupling, drawn)


def test_a_plan_of_another_net_is_refused(coupling):
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    with pytest.raises(InputError, match="the plan must be of this coupling: unknown group '0'"):
        render(coupling, plan(analyze(model), model))


def test_names_cannot_inject_markup(coupling):
    page = render(coupling, title="</title><script>alert(1)</script>")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_to_html_writes_one_file(coupling, tmp_path):
    coupling.to_html(tmp_path / "new" / "groups.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["groups.html"]
    with pytest.raises(InputError, match="the page cannot be written to"):
        to_html(coupling, tmp_path / "new" / "groups.html" / "below.html")


def test_the_drawing_shows_layers_and_joints(coupling):
    drawn = drawing(coupling, {})
    assert [(box.kind, box.name) for box in drawn.boxes] == [
        (INPUT, "x"), (LAYER, "conv1"), (LAYER, "conv2"), (OPERATOR, "add"), (LAYER, "conv3"), (OPERATOR, "cat"),
        (LAYER, "head"), (LAYER, "fc"), (OUTPUT, "output")]
    assert set(drawn.edges) == {(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 5), (5, 6), (6, 7), (7, 8)}
    cat = drawn.boxes[5]
    assert (cat.makes, cat.before) == ((0, 1), 12)


def test_every_edge_goes_down():
    drawn = drawing(analyze(torchvision.models.inception_v3(init_weights=False)), {})
    grid = places(range(len(drawn.boxes)), drawn.edges)
    assert all(grid[u][1] < grid[v][1] for u, v in drawn.edges)
    assert len(set(grid.values())) == len(grid), "no box stands on another"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                     "disable-component-update", "disable-sync", "window-size=1400,900",
                     f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """The page of a ResNet, opened without a network."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", {
        "offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    analyze(torchvision.models.resnet18()).to_html(tmp_path / "groups.html")
    browser.get((tmp_path / "groups.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def boxes(browser, kind):
    return {box.get_attribute("data-name") for box in browser.find_elements("css selector", f".box.{kind}")}


def test_a_click_on_a_group_shows_its_layers(opened):
    opened.find_element("css selector", '#groups button[data-group="0"]').click()
    assert boxes(opened, "makes") == {"conv1", "layer1.0.conv2", "layer1.1.conv2", "add"}
    assert boxes(opened, "reads") >= {"layer1.0.conv1", "layer2.0.downsample.0"}
    details = opened.find_element("id", "details")
    assert details.is_displayed()
    assert "tied by (2)" in details.text and "layer1.1.conv2.weight[0]" in details.text


def test_a_click_on_a_layer_shows_its_group(opened):
    opened.find_element("css selector", '.box[data-name="layer3.1.conv1"] rect').click()
    assert opened.find_element("css selector", "#details h2").text == "layer3.1.conv1"
    opened.find_element("tag name", "body").send_keys("\ue00c")
    assert not opened.find_element("id", "details").is_displayed(), "escape takes it back"


def test_search_finds_a_layer(opened):
    search = opened.find_element("id", "search")
    search.send_keys("layer4.1.bn2")
    assert opened.find_element("id", "found").text == "layers: 0, groups: 1"
    search.clear()
    search.send_keys("layer4.1.conv2\n")
    assert boxes(opened, "hit") == {"layer4.1.conv2"}
    assert opened.find_element("css selector", "#details h2").text == "layer4.0.conv2"
    box = opened.find_element("css selector", ".box.hit").rect
    assert 0 < box["y"] < 900, "it is scrolled into view"


def test_results_of_a_search_are_lit_and_above_the_fold(opened):
    opened.find_element("id", "search").send_keys("layer4.1")
    shown = [b for b in opened.find_elements("css selector", "#groups button") if b.is_displayed()]
    assert [b.text.split()[0] for b in shown] == ["layer4.0.conv2", "layer4.1.conv1"]
    assert all(b.rect["y"] < 400 for b in shown)
    assert boxes(opened, "hit") == {"layer4.1.conv1", "layer4.1.conv2"}
    assert boxes(opened, "lit") >= {"layer4.0.conv2", "layer4.1.conv1"}
    opacity = {box.get_attribute("data-name"): box.value_of_css_property("opacity")
               for box in opened.find_elements("css selector", ".box.layer")}
    assert opacity["layer4.1.conv1"] == "1" and opacity["layer2.0.conv1"] == "0.24"


def test_the_drawing_uses_the_width(opened):
    """In columns beside one another where one is longer than the window."""
    def columns():
        return opened.find_elements("css selector", ".view:not([hidden]) svg")

    pane = opened.find_element("id", "drawing").rect
    assert len(columns()) == 2 and sum(part.rect["width"] for part in columns()) > 0.8 * pane["width"]
    assert len(opened.find_elements("css selector", ".box.layer")) == 21, "each layer is in one of them"
    opened.set_window_size(500, 900)
    assert len(columns()) == 1 and columns()[0].rect["width"] <= opened.find_element("id", "drawing").rect["width"]
    assert not opened.execute_script("return document.documentElement.scrollWidth > innerWidth")
    opened.set_window_size(1400, 900)


def test_repeated_blocks_unfold(browser, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3 if k == 0 else 8, 8, 1), nn.ReLU()) for k in range(6)))
    analyze(net, torch.zeros(1, 3, 8, 8)).to_html(tmp_path / "deep.html")
    browser.get((tmp_path / "deep.html").as_uri())
    assert browser.find_element("tag name", "h1").text == "Sequential: coupling groups"

    def drawn():
        return [box.get_attribute("data-name") for box in browser.find_elements("css selector", ".box")
                if box.is_displayed()]

    assert drawn() == ["input", "0.0", "5 more like 0", "output"]
    browser.find_element("id", "search").send_keys("3.0")
    assert boxes(browser, "hit") >= {"5 more like 0"}
    assert browser.find_element("id", "found").text == "layers: 1, groups: 2"
    browser.find_element("css selector", ".box.fold").click()
    assert drawn() == ["input", *(f"{k}.0" for k in range(6)), "output"]
    assert browser.get_log("browser") == []


def test_frozen_groups_say_why(opened):
    opened.find_element("css selector", '#groups button[data-group="12"]').click()
    assert "may not be cut: model output" in opened.find_element("id", "details").text


def test_light_and_dark(opened):
    def background():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    before = background()
    opened.find_element("id", "theme").click()
    assert background() != before


def test_the_whole_network_fits(opened):
    opened.find_element("id", "fit").click()
    pane, svg = (opened.find_element("css selector", name).size for name in ("#drawing", "svg"))
    assert svg["height"] <= pane["height"] + 1
