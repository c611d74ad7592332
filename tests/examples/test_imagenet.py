"""DWGL on ImageNet, end to end on 200 tiny images: with two processes, from shards, and after an interruption."""

import json
import subprocess
import sys
from pathlib import Path

import imagenet
import imagenet_training
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ["--from-scratch", "--size", "32", "--workers", "0", "--press-epochs", "1", "--finetune-epochs", "2",
         "--lr", "0.05", "--ema", "0.9", "--device", "cpu"]
CLASSES, SPLIT = 4, {"train": 40, "val": 10}


def pictures():
    rng = np.random.default_rng(0)
    for part, count in SPLIT.items():
        for label in range(CLASSES):
            for i in range(count):
                pixels = rng.normal(60 * label, 30, (40, 36, 3))
                yield part, label, i, Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    for part, label, i, picture in pictures():
        place = root / part / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{i}.jpeg")
    return root


def run(folder, out, *more):
    return imagenet.main(["--data", str(folder), "--model", "resnet18", "--batch-size", "16", *SHORT,
                          "--out", str(out), *more])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["53", "75"])
def test_the_papers_rows_with_two_processes(folder, tmp_path, preset):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
               str(EXAMPLES / "imagenet.py"), "--data", str(folder), "--preset", preset, "--batch-size", "16", *SHORT,
               "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    original, cut, tuned = json.loads((tmp_path / "rows.json").read_text())
    assert cut["macs"] == tuned["macs"] <= imagenet.PRESETS[preset].macs * original["macs"]
    # 40 test images, each counted once by the two processes together.
    assert all((40 * row["accuracy"] / 100) % 1 < 1e-9 for row in (original, cut, tuned))
    log = [json.loads(line) for line in done.stderr.splitlines() + done.stdout.splitlines() if line.startswith('{"ph')]
    assert [(r["phase"], r["epoch"]) for r in log] == [("press", 1), ("finetune", 1), ("finetune", 2)]
    assert "released" in log[0]["dwgl"] and (tmp_path / "plan.json").exists()


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "whole")
    train = imagenet_training._epoch

    def interrupted(state, wrapped, data, phase, epoch):
        if (phase.name, epoch) == ("finetune", 1):
            raise KeyboardInterrupt
        train(state, wrapped, data, phase, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(imagenet_training, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "twice")
    with pytest.raises(SystemExit, match=r"press.pt is there already; add --resume to go on"):
        run(folder, tmp_path / "twice")
    rows = run(folder, tmp_path / "twice", "--resume")
    assert rows == json.loads((tmp_path / "whole" / "rows.json").read_text())
    whole, twice = (load_file(tmp_path / name / "small.safetensors") for name in ("whole", "twice"))
    assert whole.keys() == twice.keys() and all(torch.equal(whole[name], twice[name]) for name in whole)


@pytest.mark.slow
def test_from_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for part in SPLIT:
        with webdataset.ShardWriter(f"{tmp_path}/{part}-%06d.tar", maxcount=40, verbose=0) as writer:
            for which, label, i, picture in pictures():
                if which == part:
                    writer.write({"__key__": f"{label}-{i}", "jpg": picture, "cls": label})
    rows = imagenet.main(["--train-shards", f"{tmp_path}/train-{{000000..000003}}.tar", "--train-images", "160",
                          "--test-shards", f"{tmp_path}/val-000000.tar", "--classes", "4", "--model", "resnet18",
                          "--batch-size", "16", *SHORT, "--out", str(tmp_path / "out")])
    assert rows[1]["macs"] <= 0.47 * rows[0]["macs"] and (40 * rows[2]["accuracy"] / 100) % 1 < 1e-9


def test_wrong_arguments_are_named(folder, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="must hold the folders train and val, and has no train"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match="--batch-size 999 is more than the 160 images"):
        run(folder, tmp_path / "out", "--batch-size", "999")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for wrong, message in (([], "give --data, or --train-shards and --test-shards"),
                           (["--data", "x", "--batch-size", "15"], "must be a multiple of the 2 processes, got 15")):
        with pytest.raises(SystemExit):
            imagenet.parse(["--out", "x", *wrong])
        assert message in capsys.readouterr().err
