"""``fxprune bench``: counts are exact, settings are taken over, and no test asserts a time."""

import json

import pytest
import torch
from torch import nn

import fxprune
from fxprune.cli import main
from fxprune.cli.side_by_side import _moved, bench
from fxprune.errors import InputError

NET = '''
from torch import nn


def wide():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


def narrow():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
'''
QUICK = ("--repeats", "2", "--warmup", "0", "--threads", "1")
# 36 outputs of the first convolution and 16 of the second, on 8 × 8 pixels.
WIDE, NARROW = 36 * 8 * 27 + 16 * 4 * 72, 36 * 4 * 27 + 16 * 4 * 36


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "nets_to_time.py").write_text(NET)
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    code = main(["bench", *arguments, *QUICK])
    out, err = capsys.readouterr()
    return code, out, err


def test_two_models(capsys, place):
    code, out, _ = run(capsys, "nets_to_time.py:wide", "nets_to_time.py:narrow", "--input", "1,3,8,8")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[2:6]] == ["MACs", "parameters", "time, median",
                                                                     "time, quartiles"]
    assert f"{WIDE / NARROW:.2f}×" in out
    assert "batch 1, float32, cpu, threads: 1, repeats: 2, in turns; inputs: float32 [1, 3, 8, 8]" in out


def test_a_folder_and_a_batch(capsys, place):
    model = "nets_to_time.py:wide"
    assert main(["compress", model, "--input", "1,3,8,8", "--channels", "0.5", "--out", "small"]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, model, "small", "--input", "1,3,8,8", "--batch", "3", "--channels-last", "--format",
                       "json")
    data = json.loads(out)
    assert code == 0 and data["macs"] == [3 * WIDE, 3 * NARROW]
    assert data["measured"]["macs"] == pytest.approx(WIDE / NARROW)
    assert data["measured"]["small"]["batch"] == 3 and data["inputs"] == "float32 [3, 3, 8, 8]"


def test_the_models_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    small = fxprune.compress(model, torch.randn(1, 3, 8, 8), channels=0.5)
    found = bench(model, small, torch.randn(1, 3, 8, 8), channels_last=True, repeats=1, warmup=0)
    assert found.macs == (WIDE, NARROW)
    assert model[2].weight.is_contiguous() and not model[2].weight.is_contiguous(memory_format=torch.channels_last)


def test_inputs_are_inferred():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    found = bench(model, model, batch=5, repeats=1, warmup=0)
    assert found.inputs.startswith("float32 [5, 6], inferred") and found.measured.small.batch == 5


@pytest.mark.parametrize(("arguments", "message"), [
    (("--batch", "0"), "--batch must be at least 1, got 0"),
    (("--device", "abacus"), "--device must be one that this PyTorch can use, got 'abacus'"),
])
def test_refusals(capsys, place, arguments, message):
    code, _, err = run(capsys, "nets_to_time.py:wide", "nets_to_time.py:narrow", "--input", "1,3,8,8", *arguments)
    assert code == 2 and message in err


def test_a_folder_without_a_plan(capsys, place, tmp_path):
    (tmp_path / "empty").mkdir()
    for names in (("nets_to_time.py:wide", "empty"), ("empty", "nets_to_time.py:wide")):
        code, _, err = run(capsys, *names, "--input", "1,3,8,8")
        assert code == 2 and "a folder with a plan.json, and 'empty' has none; write it with fxprune compress" in err


@pytest.fixture
def folders(capsys, place):
    for name, share in (("half", "0.5"), ("most", "0.75")):
        assert main(["compress", "nets_to_time.py:wide", "--input", "1,3,8,8", "--channels", share, "--out", name]) == 0
    capsys.readouterr()


def test_two_folders(capsys, folders):
    """Their programs, on the inputs that their plans name."""
    code, out, _ = run(capsys, "most", "half", "--trust", "--batch", "2", "--channels-last", "--format", "json")
    data = json.loads(out)
    assert code == 0 and data["macs"] == [2 * (36 * 6 * 27 + 16 * 4 * 54), 2 * NARROW]
    assert data["kinds"] == ["exported program"] * 2 and data["inputs"] == "float32 [2, 3, 8, 8]"


def test_a_folder_beside_a_name(capsys, folders):
    code, out, _ = run(capsys, "half", "nets_to_time.py:wide", "--trust")
    assert code == 0 and f"{NARROW / WIDE:.2f}×" in out
    assert out.splitlines()[-2:] == ["batch 1, float32, cpu, threads: 1, repeats: 2, in turns; inputs: float32 "
                                     "[1, 3, 8, 8]", "exported program against module"]
    code, out, _ = run(capsys, "nets_to_time.py:wide", "half")
    assert code == 0 and f"{WIDE / NARROW:.2f}×" in out and "inputs: float32 [1, 3, 8, 8]" in out.splitlines()[-1]


def test_a_program_moves_to_another_device(tmp_path):
    """On the meta device, which every machine has."""
    class Positions(nn.Sequential):
        def forward(self, x):
            with torch.no_grad():
                places = torch.arange(x.shape[0], device=x.device).float()
            return super().forward(x) * places[:, None]

    net = Positions(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    small = fxprune.compress(net, torch.randn(2, 4), channels=0.5)
    program = fxprune.load(fxprune.save(small, tmp_path / "positions").folder, trust=True)
    x, place = torch.randn(3, 4), torch.device("meta")
    out = _moved(program, place)(x.to(place))
    assert out.is_meta and out.shape == (3, 2)
    assert torch.allclose(program(x), small(x)) and torch.equal(_moved(program, torch.device("cpu"))(x), program(x))


def test_folders_that_cannot_be_run(capsys, folders, tmp_path):
    for arguments, message in ((("half", "most", "--weights", "x.pt"), "is a folder with its own; leave --weights out"),
                               (("half", "most", "--input", "1,5,8,8", "--trust"), "fxprune: "),
                               (("half", "most"), "command line: a MODEL by name beside the folder, or --trust")):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and message in err and err.count("\n") == 1
    (tmp_path / "half/model.pt2").unlink()
    code, _, err = run(capsys, "half", "most", "--trust")
    assert code == 2 and "has no model.pt2" in err
    # A plan of the model by name needs no program.
    assert run(capsys, "nets_to_time.py:wide", "half")[0] == 0
    (tmp_path / "half/plan.json").write_text("{")
    assert run(capsys, "nets_to_time.py:wide", "half")[0] == 2


def test_a_plan_of_another_model(place, tmp_path):
    other = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    plan = fxprune.plan(fxprune.analyze(other, torch.randn(1, 3, 8, 8)), other, channels=0.5)
    plan.save(tmp_path / "plan.json")
    assert main(["bench", "nets_to_time.py:wide", str(tmp_path)]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_compiled():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    small = fxprune.compress(model, torch.randn(1, 3, 8, 8), channels=0.5)
    found = bench(model, small, torch.randn(1, 3, 8, 8), compiled=True, repeats=1, warmup=1)
    assert found.measured.macs == pytest.approx(WIDE / NARROW)


def test_a_device_is_named_before_anything_runs():
    with pytest.raises(InputError, match="write --device cpu"):
        bench(nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(1, 2), device="cuda:99")
