"""The short examples run, and what they return is what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fxprune


def test_torchvision_resnet(capsys):
    import torchvision_resnet

    small = torchvision_resnet.main(["resnet18", "--macs", "0.5", "--size", "64"])
    record = fxprune.record(small)
    assert record.after.macs <= 0.5 * record.before.macs and record.verification.ok
    assert all(width % 8 == 0 for name, width in record.after.widths.items() if name != "fc")
    assert "layer1.0.conv1              64 → " in capsys.readouterr().out


@pytest.mark.parametrize("heads", ["dims", "whole"])
def test_timm_model(heads, capsys):
    pytest.importorskip("timm")
    import timm_model

    small = timm_model.main(["test_vit", "--heads", heads])
    record = fxprune.record(small)
    assert record.after.params <= 0.6 * record.before.params and record.verification.ok
    assert "pretrained_cfg['input_size']" in capsys.readouterr().out


def test_transformers_llama(capsys, tmp_path):
    pytest.importorskip("transformers")
    import transformers_llama

    loaded = transformers_llama.main(["--steps", "2", "--out", str(tmp_path / "small")])
    assert loaded.config.hidden_size == 32 and loaded.config.num_attention_heads == 2
    assert "module mode, verified" in capsys.readouterr().out


def test_detector(capsys):
    import detector

    small = detector.main(["--size", "128"])
    record = fxprune.record(small)
    assert record.mode == "module" and record.verification.ok
    assert record.after.macs < 0.7 * record.before.macs
    out = capsys.readouterr().out
    assert "FasterRCNN [['boxes', 'labels', 'scores']]" in out and "whole: " in out


def test_segmentation(capsys):
    import segmentation

    small = segmentation.main(["--size", "64"])
    assert fxprune.record(small).verification.ok
    assert "{'out': (2, 8, 96, 160)}" in capsys.readouterr().out


def test_own_net(capsys):
    import own_net

    small = own_net.main()
    record = fxprune.record(small)
    assert record.after.macs <= 0.5 * record.before.macs
    out = capsys.readouterr().out
    assert "left.0 and gate are coupled" in out and "verified:" in out


@pytest.mark.slow
def test_mid_training_on_two_processes():
    path = Path(__file__).parents[2] / "examples" / "mid_training.py"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    # Two processes write on one pipe: what one prints is whole, its end of line may come after the other's.
    plans = re.findall(r"Plan\(.*?; momentum of layer 4: \[[\d, ]+\]", ended.stdout)
    assert len(plans) == 2 and len(set(plans)) == 1 and ended.stdout.count("after: loss") == 2


def test_mid_training():
    import mid_training

    small, losses = mid_training.main(steps=30)
    assert small.get_parameter("0.weight").shape[0] < 32
    assert all(torch.isfinite(torch.tensor(losses))) and len(losses) == 60
    assert losses[-1] < 0.5 * losses[0]
