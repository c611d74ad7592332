"""A coupling is a value: it pickles, and what was unpickled answers as the original does."""

import io
import pickle

import pytest
import torch
import torchvision
from torch import nn

import fxprune
from fxprune.coupling.permutable import permutable


class Listing(pickle.Unpickler):
    """Lists what a pickle names, and from where."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.packages, self.of_torch = set(), set()

    def find_class(self, module, name):
        found = super().find_class(module, name)
        self.packages.add(module.partition(".")[0])
        if module.startswith("torch"):
            self.of_torch.add(found)
        return found


class Cut(nn.Module):
    """Data decides, so that only a run can be recorded."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.again = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = x + self.b(x)
        return self.again(x[x.sum(1).sort().indices.numpy()])


NETS = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=4), torch.randn(1, 3, 32, 32), ("conv1", "bn1")),
    "module": (Cut, torch.randn(3, 4), ("a", "b")),
}


@pytest.fixture(scope="module", params=NETS)
def case(request):
    build, inputs, layers = NETS[request.param]
    model = build()
    return model, fxprune.analyze(model, inputs), layers


@pytest.fixture(scope="module")
def loaded(case):
    return pickle.loads(pickle.dumps(case[1]))


def test_the_mode(case):
    assert case[1].mode == ("module" if isinstance(case[0], Cut) else "graph")
    assert bool(case[1].why) == isinstance(case[0], Cut)


def test_a_pickle_names_nothing_of_the_user_s_and_no_tensor(case):
    listing = Listing(pickle.dumps(case[1]))
    listing.load()
    assert listing.packages <= {"fxprune", "numpy", "torch", "builtins"}
    # Arguments that operators were called with.
    assert not [f for f in listing.of_torch if any(word in str(f) for word in ("ensor", "Parameter", "torch.nn"))]


def test_what_was_unpickled_answers_alike(case, loaded, tmp_path):
    _, coupling, layers = case
    assert loaded.explain(*layers) == coupling.explain(*layers)
    assert len(loaded.explain(*layers).splitlines()) >= 4
    assert set(loaded.graph.edges) == set(coupling.graph.edges)
    assert loaded.report("json") == coupling.report("json")
    for name, value in (("ours.html", coupling), ("theirs.html", loaded)):
        value.to_html(tmp_path / name)
    assert (tmp_path / "ours.html").read_text() == (tmp_path / "theirs.html").read_text()


def test_what_was_unpickled_serves_every_pass(case, loaded):
    model, coupling, _ = case
    assert permutable(loaded) == permutable(coupling) != set()
    ordered, _ = fxprune.order(model, loaded)
    plan = fxprune.plan(loaded, ordered, channels=0.5)
    assert plan == fxprune.plan(coupling, ordered, channels=0.5)
    assert fxprune.DWGL(loaded)(model).item() == fxprune.DWGL(coupling)(model).item()


def test_a_result_carries_its_coupling_along(case):
    model, coupling, layers = case
    small = pickle.loads(pickle.dumps(fxprune.apply(model, fxprune.plan(coupling, model, channels=0.5))))
    assert fxprune.record(small).coupling.explain(*layers) == coupling.explain(*layers)
