"""The main job end to end on a few random images: its files, its table, its resumption and its messages."""

import json
from functools import partial

import cifar10_resnet
import numpy as np
import pytest
from safetensors.torch import load_file


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_resnet, "latencies", partial(cifar10_resnet.latencies, batch_size=2, rounds=1))
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 10
    np.savez(tmp_path / "data.npz", train_x=x, train_y=y, test_x=x[:12], test_y=y[:12])
    return tmp_path / "data.npz"


def run(data, *options):
    cifar10_resnet.main(["--data", str(data), "--epochs", "1", "--finetune-epochs", "1", "--device", "cpu", *options])


def test_train_compress_finetune(data, tmp_path, capsys):
    run(data, "--out", str(tmp_path / "out"), "--macs", "0.5")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    before, one_shot, tuned = result["rows"]
    assert before["latency_ms"] > 0
    assert 0.4 * before["macs"] < one_shot["macs"] <= 0.5 * before["macs"]
    assert before["params"] == 272474 > one_shot["params"] == tuned["params"]
    assert "ResNet-20, compressed, fine-tuned" in (tmp_path / "out" / "table.txt").read_text()
    assert "ResNet-20, compressed, fine-tuned" in capsys.readouterr().out
    weights = load_file(tmp_path / "out" / "compressed.safetensors")

    # The same command goes on from its checkpoints, here to nothing that is left to do; another start is refused.
    run(data, "--out", str(tmp_path / "out"), "--resume")
    again = load_file(tmp_path / "out" / "compressed.safetensors")
    assert all((weights[name] == again[name]).all() for name in weights)
    with pytest.raises(SystemExit, match=r"already holds a run; pass resume=True \(--resume\)"):
        run(data, "--out", str(tmp_path / "out"))


def test_trained_weights_can_be_the_start(data, tmp_path):
    run(data, "--out", str(tmp_path / "trained"), "--train-only")
    assert not (tmp_path / "trained" / "result.json").exists()
    weights = tmp_path / "trained" / "original.safetensors"
    run(data, "--out", str(tmp_path / "out"), "--baseline", str(weights))
    assert not (tmp_path / "out" / "train").exists()
    assert (tmp_path / "out" / "finetune" / "log.jsonl").exists()


def test_wrong_arguments_are_named(data, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"--data: no CIFAR-10 at .*nowhere"):
        run(tmp_path / "nowhere")
    with pytest.raises(SystemExit):
        run(data, "--baseline", "nowhere.safetensors")
    assert "--baseline must be a .safetensors file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(data, "--baseline", str(data), "--train-only")
    assert "give one of them" in capsys.readouterr().err


def test_short_mode_fits_ten_minutes():
    args = cifar10_resnet.parse(["--data", "data.npz", "--short"])
    # Measured: at most 34 s an epoch of ResNet-20 on two cores; a compressed one costs less.
    assert args.depth == 20
    assert 34 * (args.epochs + args.finetune_epochs) < 9 * 60
