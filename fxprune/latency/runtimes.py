"""Backends outside of PyTorch: ONNX Runtime, and a command of the user's, which may lead to another machine."""

import io
import re
import shlex
import subprocess
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxprune.capture.pytrees import tree_iter
from fxprune.errors import MeasurementError, MissingExtraError, UnsupportedError
from fxprune.ir.example_inputs import Example
from fxprune.latency.backends import clock_of, register_backend
from fxprune.latency.samples import Timed
from fxprune.latency.target import Target
from fxprune.rewrite.exportable import exportable

# Seconds after which a runner is taken for hanging.
PATIENCE = 600
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@register_backend("onnxruntime")
class OnnxRuntime:
    """ONNX Runtime on the CPU, which fuses batch norms and activations into convolutions by itself."""

    name, step, dear, session = "onnxruntime", 8, False, True

    def __init__(self, target: Target):
        self.ort = _module("onnxruntime")
        _module("onnx")
        self.version, self.threads, self.clock = self.ort.__version__, target.threads, clock_of(target)

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """See `Backend`."""
        options = self.ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        session = self.ort.InferenceSession(onnx_bytes(module, inputs), options, providers=["CPUExecutionProvider"])
        tensors = [item for item in tree_iter(inputs) if isinstance(item, torch.Tensor)]
        # An input that the program does not read has no place in it.
        values = {f"input_{place}": tensor.numpy() for place, tensor in enumerate(tensors)}
        feeds = {entry.name: values[entry.name] for entry in session.get_inputs()}
        return partial(self._timed, session, feeds)

    def _timed(self, session: Any, feeds: dict[str, Any]) -> float:
        start = self.clock()
        session.run(None, feeds)
        return self.clock() - start


@register_backend("command")
class Command:
    """A command that takes a file and prints milliseconds."""

    name, version, step, dear, session = "command", "", 16, True, False

    def __init__(self, target: Target):
        self.runner = target.runner
        if "{model}" in self.runner:
            _module("onnx")

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """See `Backend`. The file is there as long as the call is."""
        folder = tempfile.TemporaryDirectory(prefix="fxprune-")
        place = Path(folder.name) / ("model.onnx" if "{model}" in self.runner else "model.pt2")
        if place.suffix == ".onnx":
            place.write_bytes(onnx_bytes(module, inputs))
        else:
            program, (args, kwargs) = exportable(module, inputs)
            torch.export.save(torch.export.export(program, args, kwargs), place)
        words = [word.replace("{model}", str(place)).replace("{exported}", str(place))
                 for word in shlex.split(self.runner)]
        return partial(_ran, words, folder)


def _ran(words: list[str], folder: tempfile.TemporaryDirectory[str]) -> float:
    """Seconds, from the last number that the command prints."""
    shown = shlex.join(words)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=None)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasurementError(f"the runner {shown!r} must run and end within {PATIENCE} s, and did not: {error}"
                               ) from error
    if done.returncode:
        raise MeasurementError(f"the runner {shown!r} must end with code 0, and ended with {done.returncode}: "
                               f"{' '.join(done.stderr.split())[-300:] or 'without a word'}")
    numbers = NUMBER.findall(done.stdout)
    if not numbers:
        raise MeasurementError(f"the runner {shown!r} must print the milliseconds of a pass, and printed no number: "
                               f"{' '.join(done.stdout.split())[-200:]!r}")
    return float(numbers[-1]) / 1000


def onnx_bytes(module: nn.Module, inputs: Example) -> bytes:
    """The module as an ONNX program; inputs are called ``input_0``, ``input_1``, ….

    Raises:
        UnsupportedError: torch cannot export it.
    """
    module, inputs = exportable(module, inputs)
    tensors = [item for item in tree_iter(inputs) if isinstance(item, torch.Tensor)]
    names = [f"input_{place}" for place in range(len(tensors))]
    reasons = []
    export: Any = torch.onnx.export  # its annotations know no stream
    # The older exporter takes milliseconds where the newer one takes seconds, and a table has hundreds of layers.
    for newer in (False, True):
        raw = io.BytesIO()
        try:
            with warnings.catch_warnings(), torch.inference_mode(mode=False):
                warnings.simplefilter("ignore")
                program = export(module, inputs[0], None if newer else raw, kwargs=inputs[1] or None, verbose=False,
                                 input_names=names, dynamo=newer)
            return program.model_proto.SerializeToString() if newer else raw.getvalue()
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    raise UnsupportedError(f"torch.onnx.export does not take this model ({'; '.join(reasons)}); choose another "
                           "backend, or {exported} in place of {model} in a runner")


def _module(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise MissingExtraError(f"this target needs {name}; write pip install 'fxprune[onnx]'") from error
