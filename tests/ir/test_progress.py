"""Bars: in a terminal and in a notebook, and not in a log."""

import sys
import types

import torch
from torch import nn

import fxprune
from fxprune.ir import progress


def calibrated(batches=3):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    data = [torch.randn(2, 3, 8, 8) for _ in range(batches)]
    return fxprune.compress(net, data[0], channels=0.5, fold_constants=True, calibration=data)


def test_a_log_stays_clean(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    calibrated()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    calibrated()
    assert "calibration" in capsys.readouterr().err


def test_a_notebook_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert list(progress.progress(range(2), "activations")) == [0, 1]
    assert "activations" in capsys.readouterr().err
