"""The DWGL examples on a handful of random images: every row runs, resumes, and writes what it says."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")
cifar10_dwgl = pytest.importorskip("cifar10_dwgl")

from safetensors.torch import save_model  # noqa: E402

from fxprune.models import resnet20  # noqa: E402


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    images = {f"{part}_x": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in (("train", 128), ("test", 32))}
    labels = {f"{part}_y": rng.integers(0, 10, n) for part, n in (("train", 128), ("test", 32))}
    np.savez(folder / "cifar.npz", **images, **labels)
    torch.manual_seed(0)
    save_model(resnet20(), str(folder / "init.safetensors"))
    return folder


def run(setting, row: str, out: str, *more: str) -> list[dict]:
    arguments = ["--row", row, "--data", str(setting / "cifar.npz"), "--epochs", "1", "--finetune-epochs", "1",
                 "--device", "cpu", "--out", str(setting / out)]
    if row != "baseline":
        arguments += ["--init", str(setting / "init.safetensors")]
    cifar10_dwgl.main([*arguments, *more])
    return [json.loads(line) for line in (setting / out / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", ["baseline", "dwgl-paper", "l1", "sparse-learning"])
def test_a_row(setting, row):
    rows = run(setting, row, row)
    assert rows[-1]["row"] == row and 0 <= rows[-1]["accuracy"] <= 100
    if row == "baseline":
        assert (setting / row / "trained.safetensors").exists() and rows[-1]["macs_pruned"] == 0
        return
    assert [r["network"] for r in rows] == ["original", "cut", "fine-tuned"]
    assert [r["epochs"] for r in rows] == [0, 1, 2]
    # Without a penalty the network learns on for as long as the others are pressed.
    assert (setting / row / ("pressed" if row == "l1" else "penalised") / "log.jsonl").exists()
    assert rows[-1]["macs_pruned"] >= 0.5206 and rows[-1]["params_pruned"] > 0
    assert (setting / row / "plan.json").exists() and (setting / row / "small.safetensors").exists()


def test_a_guided_row_ends_at_the_target_and_direction_makes_the_voters_agree(setting):
    """One update an epoch, of which the share that is set aside is not less than ten."""
    beyond = {}
    for row in ("directed", "undirected"):
        rows = run(setting, row, row, "--epochs", "15", "--order", "activation", "--recover", "least_squares",
                   "--distil", "0.5", "--ema", "0.5", "--no-norm-decay")
        log = [json.loads(line) for line in (setting / row / "log.jsonl").read_text().splitlines()]
        found = {line["event"]: line for line in log}
        votes = found["votes"]["macs_pruned"]
        assert found["order"]["by"] == "activation" and found["press"]["steps"] <= 12
        assert rows[-1]["macs_pruned"] == pytest.approx(votes["intersection"]) and votes["intersection"] >= 0.5206
        beyond[row] = votes["union"] - votes["intersection"]
    assert 3 * beyond["directed"] < beyond["undirected"]


def test_a_row_without_a_press_is_cut_at_once(setting):
    rows = run(setting, "l1", "at-once", "--epochs", "0")
    assert [r["epochs"] for r in rows] == [0, 0, 1] and not (setting / "at-once" / "pressed").exists()


def test_the_uncut_network_is_trained_on_by_the_same_phases(setting):
    rows = run(setting, "baseline", "continued", "--init", str(setting / "init.safetensors"), "--no-norm-decay")
    assert rows[0]["epochs"] == 2 and rows[0]["macs_pruned"] == 0
    saved = torch.load(setting / "continued" / "continued" / "checkpoint.pt", weights_only=True)
    assert saved["config"]["lr"] == 0.05 and saved["config"]["decay_norms"] is False


def test_the_smaller_architecture_is_trained_from_scratch(setting):
    run(setting, "l1", "planned", "--epochs", "0")
    plan = setting / "planned" / "plan.json"
    rows = run(setting, "baseline", "scratch", "--plan", str(plan))
    small = [json.loads(line) for line in (setting / "planned" / "rows.jsonl").read_text().splitlines()][-1]
    assert (rows[0]["macs"], rows[0]["params"]) == (small["macs"], small["params"]) and rows[0]["epochs"] == 1


def test_a_row_resumes(setting):
    first = run(setting, "dwgl", "resumed")
    assert run(setting, "dwgl", "resumed", "--resume") == first


@pytest.mark.parametrize("row", ["group-lasso", "dwgl", "joint", "nested"])
def test_the_other_rows(setting, row):
    rows = run(setting, row, row)
    assert len(rows) == (7 if row == "nested" else 3)


def test_a_row_needs_its_network(setting, capsys):
    with pytest.raises(SystemExit):
        cifar10_dwgl.parse(["--row", "dwgl", "--data", str(setting / "cifar.npz")])
    assert "give --init" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cifar10_dwgl.parse(["--data", str(setting / "cifar.npz")])
    assert "name a --row, or --check" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--row", "l1"], ["--row", "baseline"]])
def test_a_plan_is_for_a_network_from_scratch(setting, capsys, words):
    known = ["--data", str(setting / "cifar.npz"), "--init", str(setting / "init.safetensors")]
    with pytest.raises(SystemExit):
        cifar10_dwgl.parse([*words, *known, "--plan", "plan.json"])
    assert "--plan makes the smaller network of another row from scratch: for --row baseline" in capsys.readouterr().err


def test_sparse_learning_is_its_formula():
    import fxprune
    from fxprune.training.decay import SparseLearning

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    loss = SparseLearning(fxprune.analyze(net, torch.zeros(1, 3)), 0.5)(net)
    loss.backward()
    squares = [net[0].weight.square().sum(1), net[2].weight.square().sum(0)]
    norm = sum(s / s.mean() for s in squares).sqrt().detach()
    factor = 2 ** (4 * (norm.max() - norm) / (norm.max() - norm.min()))
    torch.testing.assert_close(net[0].weight.grad, 0.5 * factor[:, None] * net[0].weight)
    torch.testing.assert_close(net[2].weight.grad, 0.5 * factor[None] * net[2].weight)


def test_the_commands_of_the_results_are_valid(monkeypatch):
    """As a shell expands them, with a ``python`` that only says what it is given."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    blocks = re.findall(r"^```bash\n(.*?)^```$", (root / "docs/results.md").read_text(), re.S | re.M)
    shell = "\n".join(['python() { printf "%s\n" "$*"; }', *blocks])
    said = subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    commands = [line.split()[1:] for line in said if line.startswith("examples/cifar10_dwgl.py")]
    rows = {cifar10_dwgl.parse(command).row for command in commands}
    assert rows >= {"baseline", "group-lasso", "dwgl-paper", "joint", "l1", "sparse-learning", "nested"}


def test_the_kept_checkpoints_are_verified(setting, capsys):
    cifar10_dwgl.main(["--check", "--data", str(setting / "cifar.npz"), "--device", "cpu"])
    cut = [line for line in capsys.readouterr().out.splitlines() if "cut" in line]
    assert ["yes" in line for line in cut] == [True, True]
    assert "52.82%" in cut[0] and "76.04%" in cut[1]
