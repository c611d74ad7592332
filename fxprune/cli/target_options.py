"""Where a time is measured: the fields of `fxprune.Target` as options."""

import argparse

import fxprune
from fxprune.latency.backends import BACKENDS
from fxprune.latency.target import CLOCKS, DTYPES


def add_target(command: argparse.ArgumentParser) -> None:
    """The options, for the commands that measure."""
    group = command.add_argument_group("where time is measured")
    group.add_argument("--threads", type=int, metavar="N", help="of the CPU; as PyTorch has them set if left out")
    group.add_argument("--batch", type=int, metavar="N", help="batch size; that of the example inputs if left out")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="of weights and images (%(default)s)")
    group.add_argument("--channels-last", action="store_true", help="weights and images channels-last in memory")
    group.add_argument("--compile", action="store_true", help="what torch.compile makes of the model")
    group.add_argument("--backend", default="", metavar="NAME", help=f"{', '.join(BACKENDS)}; eager on the CPU if left "
                       "out")
    group.add_argument("--runner", default="", metavar="COMMAND", help="a command that prints milliseconds: {model} in "
                       "it becomes an ONNX file, {exported} a torch.export one")
    group.add_argument("--clock", choices=CLOCKS, default="wall", help="wall, or thread: the processor time of one "
                       "thread, for a machine that others use (%(default)s)")


def target(options: argparse.Namespace) -> fxprune.Target:
    """The target that the options describe."""
    return fxprune.Target(options.device, options.threads, options.dtype,
                          "channels_last" if options.channels_last else "contiguous", options.compile, options.batch,
                          options.backend, options.runner, options.clock)
