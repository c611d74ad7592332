"""Checkpoints in shards: the plan and the slices are those of the model in memory, bit for bit; bad files are named."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import apply_shards, score_shards
from fxprune.errors import ArtefactError, InputError, PlanError
from fxprune.shards.checkpoint import INDEX, Checkpoint


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x):
        h = self.one(x)
        q, k, v = (layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.two(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Language(nn.Module):
    """The shape of a Llama, with its embedding tied to its head and a table that no checkpoint holds."""

    def __init__(self, words=50, width=16, heads=2, inner=24, depth=2):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, heads, inner) for _ in range(depth))
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, x):
        x = self.embed(x) * (1 + self.table[:x.shape[1], None])
        for block in self.blocks:
            x = block(x)
        return self.head(x)


TOKENS = torch.zeros(1, 6, dtype=torch.int64)


@pytest.fixture(scope="module")
def coupling():
    """Of a model without weights."""
    with torch.device("meta"):
        model = Language().bfloat16().eval()
    return fxprune.analyze(model, TOKENS.to("meta"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Language().bfloat16().eval()


def write(model, folder, shards=3):
    """The checkpoint as people write it: tied weights once, some tensors a file, and an index."""
    folder.mkdir()
    state = {name: p.detach() for name, p in model.named_parameters()}
    names = list(state)
    files = {name: f"model-{i * shards // len(names) + 1:05d}-of-{shards:05d}.safetensors"
             for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: state[name].contiguous() for name in names if files[name] == file}, str(folder / file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


@pytest.fixture
def src(model, tmp_path):
    return write(model, tmp_path / "src")


def loaded(folder):
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_the_plan_and_the_slices_are_those_of_the_model_in_memory(coupling, model, src, tmp_path):
    plan = score_shards(coupling, src / INDEX, params=0.6, scope="uniform", criterion="l1")
    mine = fxprune.plan(fxprune.analyze(model, TOKENS), model, params=0.6, scope="uniform", criterion="l1")
    assert plan.keep == mine.keep and plan.groups == mine.groups and plan.keep
    done = apply_shards(plan, src, tmp_path / "dst")
    small = fxprune.apply(model, mine)
    found, expected = loaded(tmp_path / "dst"), dict(small.named_parameters())
    assert found.keys() == expected.keys() and len(done.files) == 3
    assert all(t.dtype == torch.bfloat16 and torch.equal(t, expected[name]) for name, t in found.items())
    assert done.written == sum(t.nbytes for t in found.values()) < done.read
    assert Checkpoint.open(tmp_path / "dst").tensors.keys() == found.keys()
    assert sorted(p.name for p in (tmp_path / "dst").iterdir()) == sorted([*done.files, INDEX, "plan.json"])
    assert fxprune.Plan.load(tmp_path / "dst" / "plan.json") == plan
    # The small model from its config: the plan on the meta device, and the new weights.
    with torch.device("meta"):
        empty = fxprune.apply(Language().bfloat16().eval(), plan, TOKENS.to("meta"), weights="any", verify=False)
    shapes = {n: p.shape for n, p in empty.named_parameters()}
    assert shapes == {n: t.shape for n, t in found.items()}


def test_what_is_proven_lies_beside_the_shards(coupling, src, tmp_path):
    with torch.device("meta"):
        model = Language().bfloat16().eval()
    plan = score_shards(coupling, src, params=0.6, uniform=True)
    done = apply_shards(plan, src, tmp_path / "dst", model=model)
    assert done.proof.ok and done.proof.instances[0].blocks == {}
    written = json.loads((tmp_path / "dst" / "verification.json").read_text())
    assert written["unproven"] == list(done.proof.unproven)
    assert written["instances"][0]["verification"]["dtype"] == "float64"
    other = nn.Linear(3, 3)
    with pytest.raises(PlanError):
        apply_shards(plan, src, tmp_path / "other", model=other)
    assert not (tmp_path / "other").exists() and not (tmp_path / "other.partial").exists()


def test_a_plan_of_the_model_in_memory(src, tmp_path, model, coupling):
    plan = fxprune.plan(fxprune.analyze(model, TOKENS), model, channels=0.5)
    with pytest.raises(PlanError, match=r"drawn from other weights.*score_shards"):
        apply_shards(plan, src, tmp_path / "dst")  # one name of the tied weight, and no table: not to be compared
    assert not (tmp_path / "dst").exists()
    assert apply_shards(plan, src, tmp_path / "dst", weights="any").resumed == 3
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    save_file(plain.state_dict(), str(tmp_path / "model.safetensors"))
    plan = fxprune.plan(fxprune.analyze(plain, torch.zeros(1, 4)), plain, channels=0.5)
    assert apply_shards(plan, tmp_path / "model.safetensors", tmp_path / "one").files == ("model.safetensors",)
    with torch.no_grad():
        plain[0].bias.add_(1)
    save_file(plain.state_dict(), str(tmp_path / "model.safetensors"))
    with pytest.raises(PlanError, match="drawn from other weights"):
        apply_shards(plan, tmp_path / "model.safetensors", tmp_path / "two")


KILLED = """
import os, signal, sys
import fxprune, fxprune.shards.streaming as streaming
whole, count = os.replace, 0
def once(a, b):
    global count
    count += 1
    whole(a, b)
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
streaming.os.replace = once
fxprune.apply_shards(fxprune.Plan.load(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def test_killed_and_resumed(coupling, src, tmp_path):
    plan = score_shards(coupling, src, channels=0.5)
    plan.save(tmp_path / "plan.json")
    paths = [str(tmp_path / name) for name in ("plan.json", "src", "dst")]
    ended = subprocess.run([sys.executable, "-c", KILLED, *paths], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    partial = tmp_path / "dst.partial"
    assert len(list(partial.glob("*.safetensors"))) == 2 and not (tmp_path / "dst").exists()
    (partial / "model-00001-of-00003.safetensors").write_bytes(b"cut short")
    assert apply_shards(plan, src, tmp_path / "dst").resumed == 1
    apply_shards(plan, src, tmp_path / "again")
    assert all(torch.equal(t, loaded(tmp_path / "again")[n]) for n, t in loaded(tmp_path / "dst").items())


def test_a_full_disk_and_a_second_writer(coupling, src, tmp_path, monkeypatch):
    from fxprune.shards import streaming

    plan = score_shards(coupling, src, channels=0.5)
    monkeypatch.setattr(streaming.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(ArtefactError, match=r"the new shards need [\d,]+ bytes, and 10 are free"):
        apply_shards(plan, src, tmp_path / "dst")
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streaming.os, "fsync", full)
    with pytest.raises(ArtefactError, match="could not be written .No space left on device.; what is done stays in"):
        apply_shards(plan, src, tmp_path / "dst")
    assert not list((tmp_path / "dst.partial").glob("*.writing")) and not (tmp_path / "dst").exists()
    monkeypatch.undo()
    with streaming._alone(tmp_path / "dst.partial"), pytest.raises(ArtefactError, match="being written by another"):
        apply_shards(plan, src, tmp_path / "dst")
    apply_shards(plan, src, tmp_path / "dst")
    with pytest.raises(ArtefactError, match="'dst' exists already"):
        apply_shards(plan, src, tmp_path / "dst")


def edit_index(change):
    def edit(folder):
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))
    return edit


def truncate(folder):
    path = folder / "model-00002-of-00003.safetensors"
    os.truncate(path, path.stat().st_size - 2)


def narrower(folder):
    path = folder / "model-00001-of-00003.safetensors"
    save_file({name: t.half() for name, t in load_file(path).items()}, str(path))


def more(folder):
    path = folder / "model-00001-of-00003.safetensors"
    save_file({**load_file(path), "other": torch.zeros(1)}, str(path))


BAD = {
    "missing": (lambda f: (f / "model-00003-of-00003.safetensors").unlink(), "the shard 'model-00003.* is missing"),
    "truncated": (truncate, "was it cut short"),
    "dtype": (narrower, r"'.*' must be .* bfloat16 as in the coupling, and the checkpoint has .* float16"),
    "outside": (edit_index(lambda m: m.update({"embed.weight": "../secret"})), "in its own folder, got '../secret'"),
    "elsewhere": (edit_index(lambda m: m.update({"embed.weight": m["blocks.1.down.weight"]})), "says that 'embed"),
    "not listed": (more, "holds 'other', which the index does not list"),
    "lacking": (edit_index(lambda m: m.pop("blocks.1.two.weight")), "which the index does not list"),
    "empty": (lambda f: (f / INDEX).write_text("[]"), "must have a weight_map"),
    "no json": (lambda f: (f / INDEX).write_text("{"), "is not valid JSON"),
    "no file": (lambda f: shutil.rmtree(f), "there is no file src"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoints(coupling, src, name):
    spoil, words = BAD[name]
    spoil(src)
    with pytest.raises(ArtefactError, match=words):
        score_shards(coupling, src, channels=0.5)


def test_other_models(coupling, src, tmp_path):
    with torch.device("meta"):
        other = fxprune.analyze(Language(depth=1).bfloat16().eval(), TOKENS.to("meta"))
    with pytest.raises(ArtefactError, match=r"the checkpoint has 'blocks.1.*, which the model has not \(9 in all\)"):
        score_shards(other, src, channels=0.5)
    write(Language(depth=1).bfloat16(), tmp_path / "short")
    with pytest.raises(ArtefactError, match="the checkpoint lacks 'blocks.1"):
        score_shards(coupling, tmp_path / "short", channels=0.5)
    plan = score_shards(coupling, src, channels=0.5)
    with pytest.raises(PlanError, match="which the checkpoint has under no name"):
        apply_shards(plan, tmp_path / "short", tmp_path / "dst")
    narrower(tmp_path / "short")
    with pytest.raises(PlanError, match=r"must be of this checkpoint's model, but '.*' is .* float16"):
        apply_shards(plan, tmp_path / "short", tmp_path / "dst")
    with pytest.raises(InputError, match="coupling must be what fxprune.analyze returns"):
        score_shards(Language(), src)
    with pytest.raises(InputError, match="plan must be a fxprune.Plan"):
        apply_shards({}, src, tmp_path / "dst")
    assert not list(tmp_path.glob("dst*"))
