"""Outputs that are dataclasses, as all of Hugging Face's are: dictionaries wherever the class is not there."""

import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_structure

import fxprune
from fxprune.artefacts.exported import close
from fxprune.artefacts.outputs import plain
from fxprune.artefacts.source import identical

Pair = namedtuple("Pair", "mean largest")


@dataclass
class Inner:
    features: torch.Tensor
    stage: int = 3


@dataclass
class Outer:
    logits: torch.Tensor
    inner: Inner
    pair: Pair
    loss: torch.Tensor | None = None


class Nested(nn.Module):
    """Dataclasses within a dataclass and in a list; in training another one."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = self.body(x).relu()
        inner = Inner(x.sum(1, keepdim=True))
        if self.training:
            return inner
        y = self.head(x)
        return Outer(y, inner, Pair(y.mean(1), y.amax(1))), [Inner(y, 4)]


SCRIPT = """
import importlib.util, sys, torch
sys.modules["fxprune"] = sys.modules["transformers"] = None
for folder, inputs, expected in torch.load(sys.argv[1]):
    spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    with torch.no_grad():
        got = module.load()(*inputs)
    assert type(got) is dict and list(got) == list(expected), (folder, got)
    flat = lambda out: [t for v in out.values() for t in (v if isinstance(v, tuple) else (v,))]
    assert all(torch.equal(a, b) for a, b in zip(flat(got), flat(expected), strict=True)), folder
"""


def saved(model, inputs, folder):
    torch.manual_seed(0)
    small = fxprune.compress(model.eval(), inputs, channels=0.5, verify=False).eval()
    artefact = fxprune.save(small, folder)
    assert not artefact.missing
    return small, artefact.folder


def test_nested_dataclasses(tmp_path):
    small, folder = saved(Nested(), (torch.randn(2, 6),), tmp_path / "nested")
    assert "Returns a dictionary of the fields of Inner, Outer." in (folder / "model.py").read_text()
    x = torch.randn(5, 6)
    expected = small(x)
    assert type(expected[0]) is Outer
    out, rest = fxprune.load(folder, trust=True)(x)
    assert list(out) == ["logits", "inner", "pair", "loss"] and out["loss"] is None
    assert list(out["inner"]) == ["features", "stage"] and out["inner"]["stage"] == 3 and len(out["pair"]) == 2
    assert tree_structure((out, rest)) == tree_structure(plain(expected))
    assert all(map(close, tree_leaves((out, rest)), tree_leaves(plain(expected))))
    again = fxprune.load(folder, model=Nested()).eval()(x)
    assert type(again[0]) is Outer and type(again[0].inner) is Inner and identical(again, expected)


def test_another_structure_is_not_the_same():
    x = torch.zeros(2)
    assert identical(Inner(x), {"features": x, "stage": 3}) and identical(Pair(x, x), (x, x))
    assert not identical(Inner(x), (x, 3)) and not identical({"a": x}, {"b": x}) and not identical([x], (x,))


def test_keys_of_pyramids_and_feature_extractors(tmp_path):
    """Numbers, layers' names, and whatever else."""
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 2) for _ in range(4))

        def forward(self, x):
            x = self.body(x).relu()
            return {key: head(x) for key, head in zip(("0", "layer1.0-up", 7, "it's"), self.heads, strict=True)}

    small, folder = saved(Pyramid(), (torch.randn(2, 4),), tmp_path / "pyramid")
    x = torch.randn(5, 4)
    out, expected = fxprune.load(folder, trust=True)(x), small(x)
    assert list(out) == list(expected) == ["0", "layer1.0-up", 7, "it's"]
    assert all(close(out[key], expected[key]) for key in expected)


def test_a_string_is_more_than_a_program_returns(tmp_path):
    class Named(nn.Linear):
        def forward(self, x):
            return {"name": "scores", "logits": super().forward(x)}

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Named(8, 2))
    small = fxprune.compress(net, torch.randn(2, 4), channels=0.5)
    with pytest.warns(UserWarning, match="cannot read back the program that it wrote"):
        artefact = fxprune.save(small, tmp_path / "named")
    assert set(artefact.missing) == {"model.pt2"}


def hugging_face():
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    bert = transformers.BertConfig(vocab_size=60, max_position_embeddings=32, output_hidden_states=True, **text)
    picture = transformers.ViTConfig(image_size=16, patch_size=8, **text)
    ids = torch.randint(0, 60, (2, 7))
    return {"bert": (transformers.BertModel(bert), (ids,)),
            "classifier": (transformers.BertForSequenceClassification(bert), (ids,)),
            "vit": (transformers.ViTModel(picture), (torch.randn(2, 3, 16, 16),))}


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path):
    """The source in a process without transformers, bit for bit; the program with the same keys."""
    cases = []
    for name, (model, inputs) in hugging_face().items():
        small, folder = saved(model, inputs, tmp_path / name)
        with torch.no_grad():
            expected = small(*inputs)
            again = fxprune.load(folder, model=model).eval()(*inputs)
            out = fxprune.load(folder, trust=True)(*inputs)
        assert type(again) is type(expected) and identical(again, expected)
        assert type(out) is dict and list(out) == list(expected.keys())
        assert tree_structure(out) == tree_structure(plain(expected))
        assert all(map(close, tree_leaves(out), tree_leaves(plain(expected))))
        cases.append((str(folder), inputs, dict(expected)))
    torch.save(cases, tmp_path / "expected.pt")
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "expected.pt")], check=True, cwd=tmp_path,
                   env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"})
