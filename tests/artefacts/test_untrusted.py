"""Weights, plans and folders that somebody tampered with are refused by name; a program needs one's word."""

import hashlib
import json
import os
import shutil
import struct
from importlib.metadata import version

import pytest
import torch
from artefact_nets import NETS
from torch import nn

import fxprune
from fxprune.artefacts.manifest import FILES, NAME, SMALL, write_manifest
from fxprune.errors import ArtefactError, InputError, PlanError


class Evil:
    """Unpickled, it leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def build():
    return NETS["sequential"][0]()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.manual_seed(0)
    model = build()
    small = fxprune.compress(model, NETS["sequential"][1](2), channels=0.5, verify=False)
    return fxprune.save(small, tmp_path_factory.mktemp("original") / "artefact").folder


@pytest.fixture
def artefact(original, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(original, tmp_path / "artefact")


def refused(folder, message, error=ArtefactError, sealed=True, **how):
    """Refused, and not for its digest: whoever changes a file can change the manifest as well."""
    if sealed:
        write_manifest(folder)
    with pytest.raises(error, match=message):
        fxprune.load(folder, **(how or {"model": build()}))


# -- the program ----------------------------------------------------------------------------------------------------


def test_a_program_is_not_loaded_unasked(artefact, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda *args: pytest.fail("loaded"))
    refused(artefact, r"loading a program can run any code .* fxprune.load\('.*', model=Net\(\)\) .* trust=True\)",
            trust=False)
    fxprune.load(artefact, model=build())


def test_with_a_model_nothing_is_run(artefact, tmp_path):
    """Neither source nor a pickle in the program's place."""
    torch.save(Evil(str(tmp_path / "trace")), artefact / "model.pt2")
    (artefact / "model.py").write_text("raise SystemExit('ran')")
    write_manifest(artefact)
    fxprune.load(artefact, model=build())
    fxprune.load(artefact, model=build(), trust=True)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("keep", [0, 1000, -100])
def test_a_program_that_is_cut_short(artefact, keep):
    raw = (artefact / "model.pt2").read_bytes()
    (artefact / "model.pt2").write_bytes(raw[:keep])
    refused(artefact, "model.pt2 is not the file that was saved", sealed=False, trust=True)
    refused(artefact, "damaged file: model.pt2 does not load", trust=True)


# -- the manifest ---------------------------------------------------------------------------------------------------


def test_the_manifest_lists_every_file_with_its_digest(original):
    document = json.loads((original / NAME).read_text())
    assert document["format"] == "fxprune-folder" and document["version"] == 1
    assert document["torch"] == version("torch")
    assert set(document["files"]) == set(FILES) == {path.name for path in original.iterdir()} - {NAME}
    for name, digest in document["files"].items():
        assert digest == f"sha256:{hashlib.sha256((original / name).read_bytes()).hexdigest()}"


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_held_against_it(artefact, name):
    raw = (artefact / name).read_bytes()
    (artefact / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    refused(artefact, f"{name} is not the file that was saved", sealed=False)
    (artefact / name).unlink()
    refused(artefact, f"has no {name}, or is not a folder", sealed=False)


def test_files_that_were_not_saved(artefact):
    (artefact / ".gitattributes").touch()
    (artefact / "__pycache__").mkdir()
    fxprune.load(artefact, model=build())
    (artefact / "setup.py").touch()
    refused(artefact, "holds 'setup.py', which is not in its manifest.json; take it out", sealed=False)


def test_weights_of_another_folder(artefact, tmp_path):
    small = fxprune.compress(build(), NETS["sequential"][1](2), channels=0.5, verify=False)
    other = fxprune.save(small, tmp_path / "other").folder
    shutil.copy(other / "weights.safetensors", artefact)
    refused(artefact, "weights.safetensors is not the file that was saved in .*; is it of another", sealed=False)


def test_an_edited_plan_is_for_apply(artefact):
    (artefact / "plan.json").write_text((artefact / "plan.json").read_text() + " ")
    refused(artefact, r"copy it elsewhere and write fxprune.apply\(model, fxprune.Plan.load\(path\)\)", sealed=False)


def manifest(change):
    def write(folder):
        document = json.loads((folder / NAME).read_text())
        change(document)
        (folder / NAME).write_text(json.dumps(document))
    return write


@pytest.mark.parametrize(("write", "message"), [
    (lambda f: (f / NAME).unlink(), "has no manifest.json"),
    (lambda f: (f / NAME).write_text("{"), "damaged file: manifest.json is not valid JSON"),
    (lambda f: (f / NAME).write_bytes(b" " * (SMALL + 1)), "must not be larger than 65,536 bytes"),
    (lambda f: (f / NAME).write_text("[]"), "must be of the format 'fxprune-folder', version 1"),
    (manifest(lambda d: d.update(version=2)), "version 1, the only one that this fxprune reads"),
    (manifest(lambda d: d.update(files=[])), "must list the digest of every file"),
    (manifest(lambda d: d["files"].update({"plan.json": 1})), "must list the digest of every file"),
    (manifest(lambda d: d["files"].update({"../plan.json": "x"})), "lists '../plan.json', which fxprune.save does not"),
    (manifest(lambda d: d["files"].pop("plan.json")), "holds 'plan.json', which is not in its manifest"),
])
def test_manifests_that_are_none(artefact, write, message):
    write(artefact)
    refused(artefact, message, sealed=False)


# -- weights --------------------------------------------------------------------------------------------------------


def safetensors(folder, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def header(folder, change):
    """Change the list of tensors, and leave the tensors."""
    raw = (folder / "weights.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    document = json.loads(raw[8:8 + length])
    change(document)
    safetensors(folder, document, raw[8 + length:])


def entry(shape, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize(("write_file", "message"), [
    (lambda f: safetensors(f, b'{"a": {}, "a": {}}'), "the key 'a' is duplicated"),
    (lambda f: safetensors(f, {"a": entry([10 ** 9, 10 ** 9], 4)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([1], 400)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([-1], 4)}, bytes(4)), "was it cut short"),
    (lambda f: safetensors(f, {"a": entry([1], 4)}, bytes(4)), "lacks '0.bias' .* and has besides 'a'"),
    (lambda f: header(f, lambda h: h["0.bias"].update(dtype="F99")), "weights.safetensors cannot be read"),
    (lambda f: header(f, lambda h: h["0.bias"].update(data_offsets=h["1.weight"]["data_offsets"])), "cannot be read"),
    (lambda f: header(f, lambda h: h["0.bias"].update(more=1)), "'0.bias' is described by"),
    (lambda f: safetensors(f, {"__metadata__": {"folded": 1}}), "must be words"),
    (lambda f: safetensors(f, b"[" * 50_000), "nested too deeply"),
    (lambda f: (f / "weights.safetensors").write_bytes(b""), "no safetensors file"),
    (lambda f: (f / "weights.safetensors").write_bytes(struct.pack("<Q", 2 ** 60)), "no safetensors file"),
    (lambda f: (f / "weights.safetensors").write_bytes((f / "weights.safetensors").read_bytes()[:-5]), "cut short"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_weights_files(artefact, write_file, message):
    write_file(artefact)
    refused(artefact, message)


def rewritten(folder, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "weights.safetensors")
    change(state)
    save_file(state, folder / "weights.safetensors")


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s["0.bias"].fill_(float("nan")), "'0.bias' holds NaN"),
    (lambda s: s.update({"0.bias": s["0.bias"][:1]}), "'0.bias' must have the shape"),
    (lambda s: s.update({"0.bias": s["0.bias"].long()}), "'0.bias' must be torch.float32, got torch.int64"),
])
def test_weights_of_another_model(artefact, change, message):
    rewritten(artefact, change)
    refused(artefact, message)


def test_weights_that_are_nan_are_not_saved(tmp_path):
    small = fxprune.compress(build(), NETS["sequential"][1](2), channels=0.5, verify=False)
    with torch.no_grad():
        small.get_parameter("0.bias").fill_(float("nan"))
    with pytest.raises(InputError, match="'0.bias' holds NaN"):
        fxprune.save(small, tmp_path / "nan")
    assert not list(tmp_path.iterdir())


# -- the folder and the plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "plan.json", NAME])
def test_links_that_lead_out(artefact, tmp_path, name):
    shutil.move(artefact / name, tmp_path / "elsewhere")
    (artefact / name).symlink_to(tmp_path / "elsewhere")
    refused(artefact, f"{name} must be a plain file in the artefact's own folder", sealed=False)


@pytest.mark.parametrize("name", ["model.pt2", "weights.safetensors"])
def test_files_that_are_too_large(artefact, name):
    # Sparse: it takes no room.
    os.truncate(artefact / name, 2 ** 36 + 1)
    refused(artefact, f"{name} must not be larger than 68,719,476,736 bytes", sealed=False)


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("nothing", "file"):
        refused(tmp_path / name, "an artefact is a folder", sealed=False)
        refused(tmp_path / name, "an artefact is a folder", sealed=False, trust=True)


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"0-', '"0-999999999999,', "damaged plan file"), ("{", "{{", "not valid JSON"),
    ('"format"', '"format": "x", "format"', "duplicated"),
    ('"heads": "dims"', '"heads": "both"', "policy.heads must be one of"),
    ('"grouped"', '"gruoped"', "unknown key 'gruoped'"),
    ("[2, 3, 8, 8]", "[99999999, 3, 99999, 8]", "at most 1,073,741,824 elements"),
])
def test_plans(artefact, old, new, message):
    text = (artefact / "plan.json").read_text()
    assert old in text
    (artefact / "plan.json").write_text(text.replace(old, new, 1))
    refused(artefact, message, PlanError)


def test_a_model_of_another_class(artefact):
    refused(artefact, "a plan only fits a model", PlanError, model=NETS["residual"][0]())
    refused(artefact, "must be an instance of the original class, got type", model=nn.Linear)


def test_what_is_loaded_is_verified(artefact, monkeypatch):
    """As what is compressed is: here the wrong slice is taken."""
    assert fxprune.record(fxprune.load(artefact, model=build())).verification.ok
    assert fxprune.record(fxprune.load(artefact, model=build(), verify=False)).verification is None
    from fxprune import passes

    emit = passes.emit

    def wrong(*args):
        small = emit(*args)
        with torch.no_grad():
            small.get_parameter("3.weight").mul_(2)
        return small

    monkeypatch.setattr(passes, "emit", wrong)
    refused(artefact, "3", fxprune.VerificationError)
    fxprune.load(artefact, model=build(), verify=False)
