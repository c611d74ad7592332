"""The example's fine-tuning at tiny size: it learns, distils, resumes with the same bits, and the command calls it."""

from dataclasses import replace

import finetune
import numpy as np
import pytest
import torch
import training
from finetune import FineTuning, fit

import fxprune
from fxprune.cli.main import main
from fxprune.models import cifar_resnet


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 64)
    images = (rng.random((64, 32, 32, 3)) * 60 + labels[:, None, None, None] * 18).astype(np.uint8)
    np.savez(tmp_path / "tiny.npz", train_x=images, train_y=labels, test_x=images[:20], test_y=labels[:20])
    return FineTuning(data=str(tmp_path / "tiny.npz"), folder=str(tmp_path / "runs"), epochs=2, batch_size=32, ema=0.5)


def nets():
    torch.manual_seed(0)
    original = cifar_resnet(8)
    return fxprune.compress(original, torch.randn(2, 3, 32, 32), macs=0.5, verify=False), original


@pytest.mark.parametrize("distil", [0.0, 0.7])
def test_it_trains_in_place_and_leaves_the_original(config, distil, capsys):
    small, original = nets()
    before = [p.detach().clone() for p in original.parameters()]
    weights = small.conv1.weight.detach().clone()
    fit(small, original, replace(config, distil=distil))
    assert not torch.equal(weights, small.conv1.weight) and not small.training
    assert all(torch.equal(a, b) for a, b in zip(before, original.parameters(), strict=True))
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.partition("loss ")[2].split()[0]) for line in lines if line.startswith("fine-tuned  epoch")]
    assert len(losses) == 2 and losses[1] < losses[0] and lines[0].startswith("before") and "after" in lines[-1]


def test_an_interrupted_run_ends_with_the_same_bits(config, monkeypatch):
    straight, original = nets()
    fit(straight, original, replace(config, folder=config.folder + "-straight"))
    broken, _ = nets()
    save = training._save

    def interrupted(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, original, config)
    monkeypatch.setattr(training, "_save", save)
    resumed, _ = nets()
    fit(resumed, original, config)
    for (name, one), other in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_what_the_environment_says_is_read_as_python(monkeypatch):
    given = {"DATA": "x.npz", "EPOCHS": "3", "DISTIL": "0.5", "DECAY_NORMS": "False"}
    for name, text in given.items():
        monkeypatch.setenv(f"FINETUNE_{name}", text)
    assert FineTuning.from_environment() == FineTuning(data="x.npz", epochs=3, distil=0.5, decay_norms=False)


def test_the_command_trains_after_each_step(config, tmp_path, monkeypatch, capsys):
    for name in ("data", "folder", "epochs", "batch_size"):
        monkeypatch.setenv(f"FINETUNE_{name.upper()}", str(getattr(config, name)))
    assert FineTuning.from_environment() == replace(config, ema=FineTuning.ema)
    code = main(["compress", "fxprune.models:resnet20", "--input", "2,3,32,32", "--macs", "0.5", "--steps", "2",
                 "--no-verify", "--finetune", f"{finetune.__file__}:fit", "--out", str(tmp_path / "pruned")])
    out = capsys.readouterr().out
    assert code == 0 and out.count("after:") == 2 and "after 2 compressions (one plan does the same)" in out
    assert "trained after it was verified, by" in out
    plan = fxprune.Plan.load(tmp_path / "pruned" / "plan.json")
    loaded = fxprune.load(tmp_path / "pruned", model=cifar_resnet(20), verify=False)
    kept = fxprune.record(loaded).after.macs / fxprune.record(loaded).before.macs
    assert 0.46 < kept <= 0.5 and len(plan.options["steps"]) == 2
