"""``fxprune compress --checkpoint-dir``: a checkpoint in shards, from a config or a function that builds the model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fxprune.cli.main import main

BUILD = '''
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
'''


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=5, vocab_size=64,
                                      num_attention_heads=4, num_key_value_heads=2)
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="60KB")
    return folder


def refused(capsys, *arguments):
    assert main(["compress", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_from_a_config(llama, tmp_path, capsys):
    out = tmp_path / "small"
    # Queries and keys are coupled with the rotary embedding's table, which is in no checkpoint.
    assert main(["compress", "--config", str(llama), "--checkpoint-dir", str(llama), "--params", "0.6", "--uniform",
                 "--out", str(out)]) == 0
    said, told = capsys.readouterr()
    warned = next(line for line in told.splitlines() if line.startswith("fxprune: warning: "))
    assert "stay whole" in warned and "'model.rotary_emb.inv_freq', which the checkpoint does not" in warned
    assert "blocks 0, 1 of 'model.layers'" in said and "not proven: 5 blocks of 'model.layers'" in said
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    small = {name: t for file in sorted(set(index.values())) for name, t in load_file(out / file).items()}
    widths = {small[f"model.layers.{k}.mlp.up_proj.weight"].shape for k in range(5)}
    assert len(widths) == 1 and widths.pop()[0] < 64
    assert all(t.dtype == torch.bfloat16 for t in small.values())
    assert json.loads((out / "verification.json").read_text())["instances"]


def test_from_a_function(tmp_path, monkeypatch, capsys):
    from safetensors.torch import save_file

    Path(tmp_path / "mine.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(BUILD, namespace)
    save_file(namespace["build"]().half().state_dict(), "model.safetensors")
    assert main(["compress", "mine.py:build", "--checkpoint-dir", ".", "--channels", "0.5", "--no-verify",
                 "--out", "small"]) == 0
    assert "not verified" in capsys.readouterr().out
    small = load_file("small/model.safetensors")
    assert small["0.weight"].shape == (8, 4) and small["2.weight"].dtype == torch.float16


def test_what_does_not_go_together(llama, tmp_path, capsys):
    both = ["--config", llama, "--checkpoint-dir", llama]
    assert "--out" in refused(capsys, *both)
    assert "--recover needs the model in memory" in refused(capsys, *both, "--out", "x", "--recover", "statistics")
    assert "a MODEL or --config FILE" in refused(capsys, "--checkpoint-dir", llama, "--out", "x")
    assert "a MODEL or --config FILE" in refused(capsys, "resnet18", *both, "--out", "x")
    assert "must be a transformers config.json" in refused(
        capsys, "--config", tmp_path, "--checkpoint-dir", llama, "--out", "x")
    with pytest.raises(SystemExit):
        main(["compress", "--config", str(llama)])
    assert "--config stands for it only with --checkpoint-dir" in capsys.readouterr().err


def test_a_class_that_transformers_does_not_have(llama, tmp_path, capsys):
    config = json.loads((llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    message = refused(capsys, "--config", tmp_path, "--checkpoint-dir", llama, "--out", "x")
    assert "must name in architectures a class of transformers" in message and "NoSuchModel" in message
