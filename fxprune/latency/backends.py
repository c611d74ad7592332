"""Who runs a model and says how long a pass took: one small protocol, and a table of those that keep it."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from fxprune.errors import InputError, unknown
from fxprune.ir.example_inputs import Example
from fxprune.latency.samples import Timed
from fxprune.latency.target import Target

# Passes before a CUDA graph is captured: libraries choose their kernels there.
GRAPH_WARMUP = 3


class Backend(Protocol):
    """Runs modules on one target.

    Attributes:
        name, version: what stands in tables and plans.
        step: widths that are multiples of it are good ones here, where measuring does not say more.
        dear: whether a layer takes seconds to prepare or to run (a compiler, a command).
        session: whether every call enters a runtime here, which a model does once and each of its layers when alone.
    """

    name: str
    version: str
    step: int
    dear: bool
    session: bool

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """A call that runs the module once, in inference mode, and gives the seconds that the pass took.

        Args:
            module: in eval mode, on the target's device, in its dtype and memory format.
            inputs: positional and keyword arguments, likewise.
        """
        ...


BACKENDS: dict[str, Callable[[Target], Backend]] = {}


def register_backend(name: str) -> Callable[[Callable[[Target], Backend]], Callable[[Target], Backend]]:
    """Register what makes a backend for a target, under the name that ``Target(backend=...)`` takes.

    Raises:
        InputError: the name is taken.
    """

    def register(make: Callable[[Target], Backend]) -> Callable[[Target], Backend]:
        if name in BACKENDS:
            raise InputError(f"backend {name!r} is registered already; choose another name")
        BACKENDS[name] = make
        return make

    return register


def backend_for(target: Target) -> Backend:
    """The backend that a target names, checked to be there.

    Raises:
        InputError: no such backend, device or compiler.
        MissingExtraError: a package is not installed.
    """
    if target.runs_on not in BACKENDS:
        raise InputError(unknown("backend", target.runs_on, BACKENDS))
    check_device(target.device)
    return BACKENDS[target.runs_on](target)


def check_device(name: str) -> torch.device:
    """The device, tried.

    Raises:
        InputError: this PyTorch cannot use it.
    """
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        words = " ".join(str(error).split())[:120]
        raise InputError(f"device must be one that this PyTorch can use, got {name!r} ({words}); write "
                         "device='cpu', on the command line --device cpu") from error
    return place


def clock_of(target: Target) -> Callable[[], float]:
    """The target's clock: seconds, from some beginning."""
    return time.thread_time if target.clock == "thread" else time.perf_counter


@register_backend("eager")
class Eager:
    """PyTorch as it runs without a compiler."""

    name: str = "eager"
    version: str = torch.__version__
    step: int = 8
    dear: bool = False
    session: bool = False

    def __init__(self, target: Target):
        self.clock = clock_of(target)

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """See `Backend`."""
        return partial(_timed, self.clock, module, *inputs)


@register_backend("compile")
class Compiled(Eager):
    """What ``torch.compile`` makes."""

    name, step, dear = "compile", 16, True

    def __init__(self, target: Target):
        super().__init__(target)
        self.cuda = target.device.startswith("cuda")
        self.session = not self.cuda
        if not self.cuda and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise InputError("torch.compile needs a C++ compiler on the CPU, and none of c++, g++ and clang++ is on "
                             "the PATH; install one, or write compile=False")

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """Compiled here, so that no timed pass pays for it."""
        compiled = torch.compile(module, dynamic=False)
        with torch.inference_mode():
            compiled(*inputs[0], **inputs[1])
        if self.cuda:
            return partial(_events, partial(compiled, *inputs[0], **inputs[1]))
        return partial(_timed, self.clock, compiled, *inputs)


@register_backend("cuda")
class Cuda:
    """A GPU: a CUDA graph of the pass where it can be captured, else its calls one by one; time by CUDA events."""

    name, step, dear, session = "cuda", 16, False, False

    def __init__(self, target: Target):
        if not torch.cuda.is_available():
            raise InputError(f"a CUDA target needs a GPU that this PyTorch can use, and there is none, for {target}; "
                             "write device='cpu'")
        self.version = f"{torch.__version__}, CUDA {torch.version.cuda}"

    def prepare(self, module: nn.Module, inputs: Example) -> Timed:
        """See `Backend`."""
        call = partial(module, *inputs[0], **inputs[1])
        return partial(_events, _graphed(call) or call)


def _timed(clock: Callable[[], float], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    with torch.inference_mode():
        start = clock()
        module(*args, **kwargs)
        return clock() - start


def _graphed(call: Callable[[], Any]) -> Callable[[], Any] | None:
    """The pass as one CUDA graph; None where it does what a graph may not hold (a copy to the CPU, say)."""
    try:
        with torch.inference_mode():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(GRAPH_WARMUP):
                    call()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return graph.replay


def _events(call: Callable[[], Any]) -> float:
    """Seconds between two events around the call."""
    with torch.inference_mode():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # What is still queued from the turn before would be counted in.
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000
