"""Models by name, and checkpoints as people have them."""

import argparse
import sys
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fxprune.errors import InputError, MissingExtraError
from fxprune.models import load, load_weights

NET = '''
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.conv1(x)
        return self.fc((x + self.conv2(x)).mean((2, 3)))


class Tied(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self[2].weight = self[0].weight


ready = Net()


def ten():
    return Net(10)


def headed(num_classes=5):
    return Net(num_classes)
'''


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A folder with a file of one's own, which is the working directory."""
    (tmp_path / "nets_of_mine.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "nets_of_mine.py:Net"
    sys.modules.pop("nets_of_mine", None)


def test_models_by_name(net):
    assert type(load(net).model).__name__ == "Net"
    assert type(load("nets_of_mine:Net").model).__name__ == "Net"
    assert type(load("nets_of_mine:ready").model).__name__ == "Net"
    assert type(load("torch.nn:Identity").model).__name__ == "Identity"


def test_timm_models():
    pytest.importorskip("timm")
    assert type(load("timm:resnet10t").model).__name__ == "ResNet"
    with pytest.raises(InputError, match="unknown timm model 'resnet10tt'; did you mean"):
        load("timm:resnet10tt")


def test_timm_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fxprune\[timm\]'"):
        load("timm:resnet10t")


def test_the_seed_decides_and_the_callers_state_stays(net):
    before = torch.get_rng_state()
    first, again, other = (load(net, seed=seed).model.conv1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


WRITTEN = {
    "plain": (lambda s: s, ""),
    "ordered": (OrderedDict, ""),
    "container": (lambda s: {"state_dict": s, "epoch": 3}, "; key 'state_dict'"),
    "net": (lambda s: {"net": s, "acc": 91.0}, "; key 'net'"),
    "nested": (lambda s: {"model": {"weights": s}}, "; key 'model.weights'"),
    "parallel": (lambda s: under("module.", s), "; prefix 'module.' stripped"),
    "lightning": (lambda s: {"state_dict": under("model.", s), "epoch": 3},
                  "; key 'state_dict'; prefix 'model.' stripped"),
    "compiled": (lambda s: under("_orig_mod.", s), "; prefix '_orig_mod.' stripped"),
    "compiled in parallel": (lambda s: under("module._orig_mod.", s),
                             "; prefix 'module.' stripped; prefix '_orig_mod.' stripped"),
    "compiled in part": (lambda s: {n.replace("conv1", "conv1._orig_mod"): t for n, t in s.items()},
                         "; prefix '_orig_mod.' stripped"),
    "averaged": (lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)}, "; prefix 'module.' stripped"),
    "with an average": (lambda s: {"ema": {n: t * 0 for n, t in s.items()}, "model": s},
                        "; key 'model'; there is also 'ema' (--key ema)"),
    "an average alone": (lambda s: {"ema_state": s, "epoch": 3}, "; key 'ema_state'"),
    "with an optimizer": (lambda s: {"optimizer": {"state": {0: {"momentum": torch.ones(3)}}}, "model": s},
                          "; key 'model'"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_checkpoints(net, name):
    wrap, said = WRITTEN[name]
    state = load(net, seed=5).model.state_dict()
    torch.save(wrap(state), "weights.pt")
    loaded = load(net, "weights.pt")
    assert loaded.weights == f"weights from weights.pt{said}"
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())


def test_the_key_chooses(net):
    state = load(net, seed=5).model.state_dict()
    torch.save({"model": state, "ema": {n: t * 0 for n, t in state.items()}}, "weights.pt")
    loaded = load(net, "weights.pt", key="ema")
    assert loaded.weights == "weights from weights.pt; key 'ema'" and not loaded.model.fc.weight.any()
    with pytest.raises(InputError, match="unknown key 'emma'; did you mean 'ema'"):
        load(net, "weights.pt", key="emma")


def test_names_of_the_models_own_are_no_prefixes(net):
    model = nn.Sequential(OrderedDict(model=nn.Linear(2, 2), net=nn.Linear(2, 2)))
    torch.save(model.state_dict(), "weights.pt")
    assert load_weights(model, "weights.pt") == "weights from weights.pt"
    # Stripped, two names would be one.
    torch.save({"model.weight": torch.ones(2, 2), "net.weight": torch.zeros(2, 2), "weight": torch.zeros(2, 2),
                "bias": torch.zeros(2)}, "two.pt")
    with pytest.raises(InputError, match="has besides 'model.weight', 'net.weight'"):
        load_weights(nn.Linear(2, 2), "two.pt")


def test_not_strict_lists_what_is_left(net):
    state = load(net, seed=5).model.state_dict()
    del state["fc.bias"]
    torch.save({**state, "more": torch.zeros(1), "fc.weight": torch.zeros(7, 8)}, "part.pt")
    loaded = load(net, "part.pt", strict=False)
    assert loaded.weights == ("weights from part.pt; not in the file, left as they were: 'fc.bias'; not in the model, "
                              "passed over: 'more'; of another shape, left as they were: 'fc.weight'")
    assert torch.equal(loaded.model.conv1.weight, state["conv1.weight"])
    torch.save({"other": torch.zeros(1)}, "other.pt")
    with pytest.raises(InputError, match=r"no tensor of 'other.pt' fits the model, whose names are like"):
        load(net, "other.pt", strict=False)


def test_a_head_of_another_size(net):
    torch.save(load("nets_of_mine.py:ten").model.state_dict(), "ten.pt")
    with pytest.raises(InputError, match=r"'fc.weight' is \[10, 8\] and the model's is \[5, 8\]: a head of another "
                                         r"size; give --num-classes 10 \(num_classes=\), or --no-strict"):
        load(net, "ten.pt")
    with pytest.raises(InputError, match="num_classes is for torchvision and timm names, and for callables that take "
                                         "it, .*; let the callable take num_classes, or build"):
        load(net, "ten.pt", num_classes=10)
    assert load("nets_of_mine.py:headed", "ten.pt", num_classes=10).model.fc.out_features == 10
    assert load("squeezenet1_1", num_classes=7).model.classifier[1].out_channels == 7


def test_objects_of_python_are_refused_with_the_remedy(net):
    state = load(net).model.state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, "args.pt")
    torch.save(load("nets_of_mine:ready").model, "whole.pt")
    for name, message in (("args.pt", r"holds arguments of Python \('argparse.Namespace'\)"),
                          ("whole.pt", r"holds a whole model, or other objects of Python \('nets_of_mine.Net', ")):
        with pytest.raises(InputError, match=message + r".* torch.save\(saved\['model'\], new_path\), or "):
            load(net, name)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty"), (b"noise", "is neither"), (b"<!doctype html>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS \(run git lfs pull\)"),
    (b"PK\x03\x04cut", "is cut short, or another kind of archive"),
])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_junk_gives_one_clear_line(net, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"one that torch.save wrote, but '{name}' {words}$"):
        load(net, name)


def test_folders_and_files_are_no_names_of_models(net, tmp_path):
    (tmp_path / "pruned").mkdir()
    with pytest.raises(InputError, match="MODEL must be .* says which file, .*; write nets_of_mine.py:build, for a"):
        load("nets_of_mine.py")
    for name, words in (("./pruned", "is a folder or file"), ("pruned", "is a folder or file, which no model"),
                        ("pruned/", "is a folder or file"), ("nowhere/", "is not there; the command bench takes")):
        with pytest.raises(InputError, match=f"MODEL must be a torchvision name, .*, but '{name}' {words}"):
            load(name)


def test_safetensors_with_shared_tensors(net, tmp_path):
    model = load("nets_of_mine.py:Tied", seed=5).model
    state = model.state_dict()
    del state["2.weight"]
    save_file(state, tmp_path / "weights.safetensors")
    fresh = load("nets_of_mine.py:Tied", seed=6).model
    load_weights(fresh, tmp_path / "weights.safetensors")
    assert torch.equal(fresh[2].weight, model[2].weight)


def test_checkpoints_that_do_not_fit(net, tmp_path):
    state = load(net).model.state_dict()
    torch.save({**state, "conv1.weight": torch.zeros(1)}, "shape.pt")
    torch.save({name: value for name, value in state.items() if "fc" not in name}, "less.pt")
    torch.save({**state, "more": torch.zeros(1)}, "more.pt")
    torch.save({"epoch": 3}, "none.pt")
    for name, message in {"shape.pt": "'conv1.weight' is [1]", "less.pt": "lacks 'fc.weight'",
                          "more.pt": "has besides 'more'", "none.pt": "holds none; save model.state_dict()"}.items():
        with pytest.raises(InputError) as error:
            load(net, name)
        assert message in str(error.value)


def test_a_checkpoint_is_never_executed(net, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"conv1.weight": Trap()}, "trap.pt")
    with pytest.raises(InputError, match="reading them can run code"):
        load(net, "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_detectors_are_built_without_a_download(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("downloads"))
    assert isinstance(load("lraspp_mobilenet_v3_large").model, nn.Module)
