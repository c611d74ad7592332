"""The commands, as a user types them."""

import csv
import inspect
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fxprune
from fxprune.artefacts import saving as folder_of_artefacts
from fxprune.artefacts.manifest import FILES, NAME
from fxprune.cli import stages
from fxprune.cli.main import main, parser
from fxprune.models.named import load

# What takes tensors or functions, which no command line can spell.
# What a folder holds is compressed further by --steps, which says --of for it.
PYTHON_ONLY = {"model", "calibration", "train", "penalty", "of"}

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv1(x)
        return self.fc((x + self.conv2(x)).mean((2, 3)))


class Tied(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self[2].weight = self[0].weight


class Two(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

    def forward(self, x, y):
        return super().forward(x + y)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = self.a(x)
        return self.b(y if y.sum().item() > 1e9 else y * 2)


ready = Net()
number = 3


def broken():
    raise RuntimeError("no data")


def interrupted():
    raise KeyboardInterrupt
'''


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A folder with a file of one's own, which is the working directory."""
    (tmp_path / "nets_of_mine.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "nets_of_mine.py:Net"
    sys.modules.pop("nets_of_mine", None)


def run(capsys, *arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_groups(capsys, net):
    code, out, _ = run(capsys, "groups", net, "--input", "1,3,8,8")
    assert code == 0
    assert out.startswith(f"{net}: random weights (seed 0)\n\n2 coupling groups, 1 prunable")


def test_machine_formats_hold_data_alone(capsys, net):
    _, out, err = run(capsys, "groups", net, "--format", "json")
    assert json.loads(out)["groups"][0]["name"] == "conv1"
    assert "random weights (seed 0)" in err
    _, out, _ = run(capsys, "groups", net, "--format", "csv")
    assert [row["name"] for row in csv.DictReader(io.StringIO(out))] == ["conv1", "fc"]


def test_groups_as_a_page(capsys, net, tmp_path):
    run(capsys, "groups", net, "--html", "groups.html")
    assert "<svg" in (tmp_path / "groups.html").read_text()


def test_explain(capsys, net):
    code, out, _ = run(capsys, "explain", net, "conv1", "conv2")
    assert code == 0
    assert out.startswith("conv1 and conv2 are coupled: both produce all 8 of group 'conv1'")
    assert "nets_of_mine.py:" in out


def test_explain_exits_with_one_where_nothing_couples(capsys, net):
    code, out, _ = run(capsys, "explain", net, "conv1.weight", "fc.bias")
    assert code == 1 and out.startswith("nothing couples conv1.weight and fc.bias")
    assert run(capsys, "explain", net, "conv1", "conv1")[0] == run(capsys, "explain", net, "conv1", "fc")[0] == 0


def test_compress_writes_the_whole_artefact(capsys, net, tmp_path):
    code, out, _ = run(capsys, "compress", net, "--channels", "0.5", "--out", "pruned/", "--seed", "3",
                       "--input", "1,3,16,16")
    assert code == 0
    assert "random weights (seed 3)" in out and "verified: " in out and "MACs" in out
    folder = tmp_path / "pruned"
    assert {path.name for path in folder.iterdir()} == {*FILES, NAME}
    assert out.splitlines()[-1] == ("written: pruned/ (plan.json, weights.safetensors, model.py, model.pt2, "
                                    "report.html, report.md, manifest.json)")
    model = load(net, seed=3).model
    small = fxprune.apply(model, fxprune.Plan.load(folder / "plan.json"))
    saved = load_file(folder / "weights.safetensors")
    assert saved.keys() == small.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in small.state_dict().items())
    report = (folder / "report.md").read_text()
    assert report.startswith(f"# {net}: random weights (seed 3)\n") and "| conv1" in report
    x = torch.randn(5, 3, 16, 16)
    assert torch.allclose(fxprune.load(folder, trust=True)(x), small.eval()(x), atol=1e-6)


def test_what_cannot_be_written_is_named(capsys, net, tmp_path, recwarn):
    code, out, _ = run(capsys, "compress", "nets_of_mine.py:Untraceable", "--input", "2,4", "--out", "pruned")
    assert code == 0 and not recwarn.list
    *_, written, source, program = out.splitlines()
    assert written == "written: pruned (plan.json, weights.safetensors, report.html, report.md, manifest.json)"
    assert source.startswith("left out: model.py: module mode keeps the model's own class")
    assert program.startswith("left out: model.pt2: module mode keeps the model's own class")


def test_a_folder_is_checked_before_the_work(capsys, net, tmp_path, monkeypatch):
    monkeypatch.setattr(fxprune, "compress", lambda *args, **kwargs: pytest.fail("compressed first"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for folder, message in (("mine", "holds 'notes.txt' besides"), ("mine/notes.txt", "is something else"),
                            ("mine/notes.txt/deep/er", "nothing can be made in ")):
        code, _, err = run(capsys, "compress", net, "--out", folder)
        assert code == 2 and message in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_full_disk_leaves_what_was_found_out(capsys, net, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_of_artefacts, "write_weights", fail)
    code, out, err = run(capsys, "compress", net, "--out", "pruned")
    assert code == 2 and "No space left on device; name another folder" in err and "verified: " in out


def test_depth(capsys, tmp_path):
    code, out, _ = run(capsys, "compress", "resnet18", "--input", "1,3,32,32", "--depth", "0.5", "--depth-criterion",
                       "depth_wise", "--out", str(tmp_path / "small"))
    assert code == 0 and "residual branches removed: layer" in out
    branches = json.loads((tmp_path / "small" / "plan.json").read_text())["branches"]
    assert len(branches) == 2 and all(name.startswith("layer") for name in branches)
    code, _, err = run(capsys, "compress", "resnet18", "--input", "1,3,32,32", "--depth", "2")
    assert code == 2 and "depth must be the fraction of residual branches that stay" in err


def test_the_default_keeps_half_of_the_macs(capsys, net):
    _, out, _ = run(capsys, "compress", net, "--layers", "--format", "md")
    assert "| layer" in out
    _, other, _ = run(capsys, "compress", net, "--layers", "--format", "md", "--macs", "0.5")
    assert out == other


def test_every_argument_of_compress_has_an_option(net):
    options = vars(parser().parse_args(["compress", net]))
    renamed = {"example_inputs": "inputs", "verify": "no_verify", "policy": "heads",
               "target": "threads", "table_check": "no_table_check"}
    arguments = set(inspect.signature(fxprune.compress).parameters) - PYTHON_ONLY
    assert {renamed.get(name, name) for name in arguments} <= set(options)


def test_defaults_are_those_of_compress(net):
    from fxprune.cli.compress_command import arguments

    given = arguments(parser().parse_args(["compress", net]))
    defaults = {name: p.default for name, p in inspect.signature(fxprune.compress).parameters.items()}
    assert given.pop("policy") == fxprune.Policy()
    assert {name: defaults[name] for name in given} == given


@pytest.mark.parametrize(("typed", "given"), [
    (["--threshold", "0.4"], {"threshold": 0.4}),
    (["--width", "conv1=5", "--width", "a=b=3"], {"widths": {"conv1": 5, "a=b": 3}}),
    (["--params", "0.3"], {"params": 0.3}),
])
def test_a_budget_and_what_takes_its_place(net, typed, given):
    from fxprune.cli.compress_command import arguments

    budgets = ("macs", "params", "channels", "threshold", "widths")
    found = arguments(parser().parse_args(["compress", net, *typed]))
    assert {name: value for name, value in found.items() if name in budgets} == given


@pytest.mark.parametrize(("arguments", "message"), [
    (("compress", "NET", "--width", "conv1=x"), "--width must be a group and its width, got 'conv1=x'"),
    (("compress", "NET", "--macs", "1.5"), "macs must be the fraction kept"),
    (("compress", "NET", "--groups", "conv9"), "unknown group or layer 'conv9'"),
    (("compress", "NET", "--input", "1;3"), "--input must be sizes"),
    (("compress", "NET", "--input", "1,3,8,8:float31"), "--input must be sizes"),
    (("explain", "NET", "conv1", "conv9"), "unknown layer 'conv9'"),
    (("groups", "resnet51"), "unknown torchvision model 'resnet51'; did you mean"),
    (("groups", "nowhere.py:Net"), "there is none at 'nowhere.py'"),
    (("groups", "nets_of_mine.py:Nett"), "unknown callable 'Nett'; did you mean 'Net'"),
    (("groups", "nets_of_mine.py:number"), "gives a int"),
    (("groups", "nets_of_mine.py:broken"), "RuntimeError: no data"),
    (("groups", "no.such.module:Net"), "ModuleNotFoundError"),
    (("groups", "NET", "--weights", "pretrained"), "exist for torchvision and timm names only"),
    (("groups", "NET", "--weights", "missing.pt"), "there is no file at 'missing.pt'"),
])
def test_refusals_are_one_line_and_code_two(capsys, net, arguments, message):
    code, out, err = run(capsys, *(net if word == "NET" else word for word in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("fxprune: ") and err.count("\n") == 1
    assert message in err


def test_two_budgets_are_refused(capsys, net):
    with pytest.raises(SystemExit) as stop:
        main(["compress", net, "--macs", "0.5", "--params", "0.5"])
    assert stop.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--criterion", "l3"), ("--vote", "none"), ("--scope", "all"), ("--bogus",)])
def test_wrong_options_show_the_usage_of_the_command(capsys, net, words):
    with pytest.raises(SystemExit) as stop:
        main(["compress", net, *words])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("usage: fxprune compress ")
    assert err.splitlines()[-1].startswith("fxprune compress: error: ")


def test_several_inputs_are_given_with_input(capsys, net):
    code, _, err = run(capsys, "groups", "nets_of_mine.py:Two")
    assert code == 2
    assert err.endswith("; on the command line: --input SHAPE[:DTYPE], once for each argument of forward\n")
    assert run(capsys, "groups", "nets_of_mine.py:Two", "--input", "2,4", "--input", "2,4")[0] == 0
    code, _, err = run(capsys, "groups", "nets_of_mine.py:Two", "--input", "2,4")
    assert code == 2 and "missing a required argument: " in err and err.endswith("once for each argument of forward\n")


def test_an_interrupt_is_quiet(capsys, net):
    assert run(capsys, "groups", "nets_of_mine.py:interrupted") == (130, "", "")


IMPORTING = """import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(9)
except KeyboardInterrupt as error:  # as some packages do
    raise RecursionError("something else") from error
"""


def ran(*command, path, **options):
    """A program that does not ignore interrupts, as those of a shell's background jobs do."""
    return subprocess.run([sys.executable, *command], capture_output=True, text=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                          env={**os.environ, "PYTHONPATH": path}, **options)


def test_an_interrupt_while_pytorch_is_imported_is_quiet(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(IMPORTING)
    path = os.pathsep.join([str(tmp_path), str(Path(fxprune.__file__).parents[1])])
    done = ran("-m", "fxprune", "groups", "resnet18", path=path)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert "something else" in ran("-c", "import fxprune", path=path).stderr


def test_an_interrupt_once_a_command_runs_has_its_exit_code(tmp_path):
    (tmp_path / "slow.py").write_text("import os, signal, time\n\ndef net():\n"
                                      "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n")
    done = ran("-m", "fxprune", "groups", "slow.py:net", path=str(Path(fxprune.__file__).parents[1]), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "")


def test_what_takes_long_is_said_where_the_output_goes_elsewhere(capsys, net, monkeypatch):
    monkeypatch.setattr(stages, "DELAY", 0.0)
    _, out, err = run(capsys, "groups", net, "--format", "json")
    assert json.loads(out)
    assert f"fxprune: analysing {net} …\n" in err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "…" not in run(capsys, "groups", net)[2]


def test_a_folder_that_cannot_be_written(capsys, net, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = run(capsys, "compress", net, "--out", "file", "--no-verify")
    assert code == 2 and "an artefact is a folder, but 'file' is something else" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_as_a_module():
    shown = subprocess.run([sys.executable, "-m", "fxprune", "--help"], capture_output=True, text=True, check=True)
    assert "compress" in shown.stdout and "explain" in shown.stdout


def test_a_reader_that_has_seen_enough(net):
    command = f"{sys.executable} -m fxprune groups {net} --format json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == "{"
    assert "Traceback" not in done.stderr


BATCHES = """
import torch

def batches():
    return [torch.randn(4, 3, 8, 8) for _ in range(2)]

def broken():
    raise OSError("no such disk")

def loss(model, batch):
    return model(batch).square().mean()
"""


def test_data_loss_and_recovery(net, tmp_path, capsys):
    (tmp_path / "batches.py").write_text(BATCHES)
    given = ["--data", f"{tmp_path}/batches.py:batches", "--loss", f"{tmp_path}/batches.py:loss", "--samples", "6"]
    assert main(["compress", net, "--channels", "0.5", "--criterion", "taylor", "--recover", "least_squares", *given,
                 "--input", "1,3,8,8"]) == 0
    assert "recovered" in capsys.readouterr().out


@pytest.mark.parametrize(("given", "text"), [
    (["--data", "nowhere.py:batches"], "--data must name an existing file"),
    (["--data", "{here}/batches.py:broken"], "raised OSError: no such disk"),
    (["--data", "{here}/batches.py"], "--data must be file.py:name"),
    (["--recover", "statistics"], "learns from data, and none was given"),
])
def test_data_that_cannot_be_had(net, tmp_path, capsys, given, text):
    (tmp_path / "batches.py").write_text(BATCHES)
    assert main(["compress", net, *(part.format(here=tmp_path) for part in given)]) == 2
    assert text in capsys.readouterr().err
