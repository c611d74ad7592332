"""A crash while a folder is written leaves the old artefact or none, and nothing beside it."""

import os
import subprocess
import sys

import pytest
import torch
from artefact_nets import NETS

import fxprune
from fxprune.artefacts import saving as folders
from fxprune.errors import InputError


@pytest.fixture(scope="module")
def smalls():
    build, inputs = NETS["sequential"]
    model = build()
    return [fxprune.compress(model, inputs(2), channels=f, verify=False).eval() for f in (0.5, 0.75)]


def test_a_folder_is_replaced(smalls, tmp_path):
    x = torch.randn(2, 3, 8, 8)
    for small in smalls:
        artefact = fxprune.save(small, tmp_path / "artefact")
        assert torch.equal(fxprune.load(artefact.folder, trust=True)(x), small(x))
        # As importing model.py leaves it.
        (artefact.folder / "__pycache__").mkdir()
    assert os.listdir(tmp_path) == ["artefact"]
    modes = {path.stat().st_mode for path in artefact.folder.iterdir() if path.is_file()}
    assert len(modes) == 1


@pytest.fixture
def quick(monkeypatch):
    """Without the programs, which take the time."""
    monkeypatch.setattr(folders, "_programs", lambda *args: None)


@pytest.mark.parametrize("place", ["write_weights", "_programs", "_report", "write_manifest"])
def test_an_error_leaves_the_old_one(smalls, tmp_path, monkeypatch, quick, place):
    old = fxprune.save(smalls[0], tmp_path / "artefact")
    before = {path.name: path.read_bytes() for path in old.folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, place, fail)
    for target in ("artefact", "other"):
        with pytest.raises(InputError, match="No space left on device; name another folder"):
            fxprune.save(smalls[1], tmp_path / target)
    assert {path.name: path.read_bytes() for path in old.folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["artefact"]


SCRIPT = """
import os, sys, torch
from torch import nn
import fxprune
from fxprune.artefacts import saving
from fxprune.ir import staging
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
small = fxprune.compress(net, torch.randn(1, 3, 8, 8), channels=0.5, verify=False)
saving._programs = lambda *args: None
if sys.argv[2] == "written":
    saving._open_up = lambda *args: os._exit(9)
else:
    rename, os.rename = os.rename, lambda *args: (rename(*args), os._exit(9))
fxprune.save(small, sys.argv[1])
"""


@pytest.mark.parametrize(("place", "left"), [("written", {"artefact", ".artefact.fxprune-part"}),
                                             ("renamed", {".artefact.fxprune-old", ".artefact.fxprune-part"})])
def test_a_killed_process_leaves_the_old_one_and_the_next_clears_up(smalls, tmp_path, quick, place, left):
    old = fxprune.save(smalls[0], tmp_path / "artefact")
    before = {path.name: path.read_bytes() for path in old.folder.iterdir()}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(old.folder), place], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert set(os.listdir(tmp_path)) == left
    kept = old.folder if place == "written" else tmp_path / ".artefact.fxprune-old"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    fxprune.save(smalls[1], tmp_path / "artefact")
    assert os.listdir(tmp_path) == ["artefact"]
    assert fxprune.load(tmp_path / "artefact", model=NETS["sequential"][0]())


def test_other_files_are_not_thrown_away(smalls, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds 'notes.txt' besides; name a new folder"):
        fxprune.save(smalls[0], tmp_path)
    with pytest.raises(InputError, match="is something else; name a new folder"):
        fxprune.save(smalls[0], tmp_path / "notes.txt")
    assert os.listdir(tmp_path) == ["notes.txt"]
