"""Workers are processes that share a storage: two of them, one that is killed, and what the command writes."""

import os
import signal
import socket
import subprocess
import sys
import time

import optuna
import pytest
import torch

import fxprune
from fxprune.cli.main import main
from fxprune.searching import studies

FILE = """
import os, pathlib, time
import torch
from torch import nn

PLACE = pathlib.Path(__file__).parent


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


@torch.no_grad()
def evaluate(small):
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    with (PLACE / "log").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    return -(small(x) - net()(x)).square().mean().item()


def hangs_on_the_third(small):
    if len((PLACE / "log").read_text().split() if (PLACE / "log").exists() else ()) == 2:
        (PLACE / "hangs").touch()
        time.sleep(600)
    return evaluate(small)


def breaks(small):
    raise RuntimeError("no data here")
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "searched_net.py").write_text(FILE)
    return tmp_path


def words(place, evaluate="evaluate", *more):
    return ["search", f"{place}/searched_net.py:net", "--input", "2,6", "--params", "0.5", "--evaluate",
            f"{place}/searched_net.py:{evaluate}", "--storage", f"sqlite:///{place}/search.db", "--study", "s", *more]


def study(place):
    return optuna.load_study(study_name="s", storage=f"sqlite:///{place}/search.db")


def test_two_workers_share_a_search(place, capfd):
    assert main(words(place, "evaluate", "--trials", "8", "--workers", "2", "--out", f"{place}/best",
                      "--search-seed", "0")) == 0
    done = [t for t in study(place).trials if t.state.name == "COMPLETE"]
    # Both may begin the last one.
    assert len(done) in (8, 9) and len(set((place / "log").read_text().split())) == 2
    assert len({t.user_attrs["plan"] for t in done}) > 4
    assert f"{study(place).best_value:.6g}" in capfd.readouterr().out
    sys.path.insert(0, str(place))
    try:
        import searched_net
        loaded = fxprune.load(place / "best", model=searched_net.net())
        assert searched_net.evaluate(loaded) == pytest.approx(study(place).best_value)
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("searched_net", None)


def test_a_killed_worker_loses_no_trial(place, monkeypatch):
    command = [sys.executable, "-m", "fxprune", *words(place, "hangs_on_the_third", "--trials", "4")]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (place / "hangs").exists() and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(0.05)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    before = study(place).trials
    assert [t.state.name for t in before] == ["COMPLETE", "COMPLETE", "RUNNING"]
    monkeypatch.setattr(studies, "HEARTBEAT", 1)
    monkeypatch.setattr(studies, "GRACE", 1)
    time.sleep(3)  # the storage counts in whole seconds
    assert main(words(place, "evaluate", "--trials", "4")) == 0
    after = study(place).trials
    assert [t.values for t in after[:2]] == [t.values for t in before[:2]]
    # What the dead worker had begun is tried again, with the same plan.
    assert after[2].state.name == "FAIL" and sum(t.state.name == "COMPLETE" for t in after) == 4
    again = next(t for t in after[3:] if t.params == before[2].params)
    assert again.user_attrs["plan"] == before[2].user_attrs["plan"]


PROXY = """
import sys
import optuna
database, port = sys.argv[1:]
optuna.storages.run_grpc_proxy_server(optuna.storages.RDBStorage(database), host="127.0.0.1", port=int(port))
"""


def test_two_workers_share_a_search_through_a_proxy(place):
    pytest.importorskip("grpc")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = ["--storage", f"grpc://127.0.0.1:{port}"]
    server = subprocess.Popen([sys.executable, "-c", PROXY, f"sqlite:///{place}/search.db", str(port)],
                              stderr=subprocess.DEVNULL)
    try:
        assert main(words(place, "evaluate", *shared, "--trials", "6", "--workers", "2")) == 0
    finally:
        server.kill()
        server.wait()
    done = [t for t in study(place).trials if t.state.name == "COMPLETE"]
    assert len(done) in (6, 7) and len(set((place / "log").read_text().split())) == 2


def test_a_proxy_that_is_not_there(place, monkeypatch, capsys):
    pytest.importorskip("grpc")
    monkeypatch.setattr(studies, "ANSWERS", 0.1)
    assert main(words(place, "evaluate", "--storage", "grpc://127.0.0.1:9", "--trials", "1")) == 2
    assert "storage 'grpc://127.0.0.1:9' could not be opened" in capsys.readouterr().err


def test_workers_need_a_storage_and_their_failure_is_told(place, capfd):
    without = [word for word in words(place, "evaluate", "--workers", "2") if "sqlite" not in word]
    without.remove("--storage")
    assert main(without) == 2 and "--storage sqlite:///search.db" in capfd.readouterr().err
    assert main(words(place, "evaluate", "--workers", "0")) == 2
    assert main(words(place, "breaks", "--workers", "2")) == 2
    err = capfd.readouterr().err
    assert "no data here" in err and "all 2 workers failed" in err


def test_sensitivity_on_the_command_line(place, capsys):
    pytest.importorskip("matplotlib")
    assert main(["search", f"{place}/searched_net.py:net", "--input", "2,6", "--evaluate",
                 f"{place}/searched_net.py:evaluate",
                 "--sensitivity", "--kept", "0.5", "--plot", f"{place}/curves.png"]) == 0
    out = capsys.readouterr().out
    assert "whole: -0" in out and "\n0 " in out and "\n2 " in out and (place / "curves.png").stat().st_size > 1000


def test_a_pruner_and_other_samplers_by_name(place, capsys):
    for sampler in ("random", "nsga2", "tpe"):
        assert main(["search", f"{place}/searched_net.py:net", "--input", "2,6", "--macs", "0.5", "--trials", "2",
                     "--sampler", sampler, "--pruner", "median", "--evaluate",
                     f"{place}/searched_net.py:evaluate"]) == 0
    assert capsys.readouterr().out.count("start") == 3
    assert torch.is_grad_enabled()
