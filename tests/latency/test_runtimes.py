"""Backends outside of PyTorch, each on a layer and on a model: what they run, and how they refuse."""

import sys

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import InputError, MeasurementError
from fxprune.latency.backends import BACKENDS, backend_for, register_backend
from fxprune.latency.layers import layers_of
from fxprune.latency.target import placed

X = ((torch.rand(1, 3, 8, 8),), {})


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def test_onnx_runtime_runs_layers_and_models():
    pytest.importorskip("onnxruntime")
    target = fxprune.Target(threads=1, backend="onnxruntime")
    backend = backend_for(target)
    assert backend.name == "onnxruntime" and backend.version
    assert backend.prepare(net(), X)() > 0
    layer = layers_of(fxprune.analyze(net(), X[0][0])).layers[0]
    assert backend.prepare(*layer.program.module((4,), target))() > 0


def test_attention_without_gradients_is_exported_without_a_word(capfd):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval().requires_grad_(False)
    target = fxprune.Target(threads=1, backend="onnxruntime")
    assert backend_for(target).prepare(placed(layer, target), ((torch.randn(1, 5, 16),), {}))() > 0
    assert not any(weight.requires_grad for weight in layer.parameters())
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("place", "kind"), [("{model}", "onnx"), ("{exported}", "pt2")])
def test_a_command_gets_a_file_and_prints_milliseconds(place, kind):
    if kind == "onnx":
        pytest.importorskip("onnx")
    code = "import os, sys; assert os.path.getsize(sys.argv[1]); print('run 3 took', 12.5, 'ms' if 0 else '')"
    target = fxprune.Target(runner=f'{sys.executable} -c "{code}" {place}')
    assert target.runs_on == "command" and backend_for(target).prepare(net(), X)() == pytest.approx(0.0125)


@pytest.mark.parametrize(("code", "message"), [
    ("print('no number')", "must print the milliseconds of a pass, and printed no number: 'no number'"),
    ("raise SystemExit(3)", "must end with code 0, and ended with 3: without a word"),
])
def test_a_runner_that_fails_or_prints_no_number(code, message):
    target = fxprune.Target(runner=f'{sys.executable} -c "{code}" {{exported}}')
    with pytest.raises(MeasurementError, match=message):
        backend_for(target).prepare(net(), X)()


def test_a_runner_is_not_asked_what_nothing_takes():
    """It may round that to 0, which no clock may say."""
    target = fxprune.Target(runner=f'{sys.executable} -c "print(2.5)" {{exported}}')
    table = fxprune.latency_table(fxprune.analyze(net(), X[0][0]), net(), target, minutes=0.001)
    assert table.idle == 0 and table.seconds == pytest.approx(0.0025)


def test_a_runner_that_is_not_there():
    with pytest.raises(MeasurementError, match="must run and end within 600 s, and did not"):
        backend_for(fxprune.Target(runner="./no-such-bench {exported}")).prepare(net(), X)()


def test_a_name_is_taken_once():
    with pytest.raises(InputError, match="backend 'eager' is registered already; choose another name"):
        register_backend("eager")(BACKENDS["eager"])


@pytest.mark.parametrize(("options", "message"), [
    ({"memory_format": "nhwc"}, "memory_format of a target must be one of 'contiguous', 'channels_last', got 'nhwc'"),
    ({"dtype": "int8"}, "dtype of a target must be one of"),
    ({"threads": 0}, "threads of a target must be a whole number of at least 1, or None, got 0"),
    ({"batch": 1.5}, "batch of a target must be a whole number of at least 1, or None, got 1.5"),
    ({"device": 3}, "device of a target must be a string, got 3"),
    ({"backend": "command"}, r"backend='command' needs the command"),
    ({"clock": "thread"}, "clock='thread' counts the processor time of one thread, so that it needs threads=1"),
])
def test_targets_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        fxprune.Target(**options)
