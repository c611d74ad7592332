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
        assert torch.equal(fxprune.load(artefact.folder)(x), small(x))
        # As importing model.py leaves it.
        (artefact.folder / "__pycache__").mkdir()
    assert os.listdir(tmp_path) == ["artefact"]
    modes = {path.stat().st_mode for path in artefact.folder.iterdir() if path.is_file()}
    assert len(modes) == 1


@pytest.fixture
def quick(monkeypatch):
    """Without the programs, which take the time."""
    monkeypatch.setattr(folders, "_programs", lambda *args: None)


@pytest.mark.parametrize("place", ["write_weights", "_programs", "_report", "_flush", "_replace"])
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


def test_a_failed_exchange_is_undone(smalls, tmp_path, monkeypatch, quick):
    old = fxprune.save(smalls[0], tmp_path / "artefact")
    rename = os.rename

    def fail(source, target):
        if os.path.basename(target) == "artefact" and not str(source).endswith(".old"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(InputError, match="Input/output error"):
        fxprune.save(smalls[1], tmp_path / "artefact")
    assert os.listdir(tmp_path) == ["artefact"] and (old.folder / "plan.json").exists()


SCRIPT = """
import os, sys, torch
from torch import nn
import fxprune
from fxprune.artefacts import saving
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
small = fxprune.compress(net, torch.randn(1, 3, 8, 8), channels=0.5, verify=False)
write, saving._programs = saving._report, lambda *args: None
saving._report = lambda *args: (write(*args), os._exit(9))
fxprune.save(small, sys.argv[1])
"""


def test_a_killed_process_leaves_the_old_one(smalls, tmp_path, quick):
    artefact = fxprune.save(smalls[0], tmp_path / "artefact")
    before = {path.name: path.read_bytes() for path in artefact.folder.iterdir()}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(artefact.folder)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert {path.name: path.read_bytes() for path in artefact.folder.iterdir()} == before


def test_other_files_are_not_thrown_away(smalls, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds 'notes.txt' besides; name a new folder"):
        fxprune.save(smalls[0], tmp_path)
    with pytest.raises(InputError, match="is something else; name a new folder"):
        fxprune.save(smalls[0], tmp_path / "notes.txt")
    assert os.listdir(tmp_path) == ["notes.txt"]
