"""``fxprune bench ORIGINAL SMALL``: the MACs ratio beside the measured one.

Each is a model by name, or a folder that `fxprune.save` wrote. A folder beside ORIGINAL's name is its plan carried out
on that model; any other folder is run as its exported program.
"""

import argparse
import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map_only

from fxprune.api import analyze, apply
from fxprune.artefacts import load as load_artefact
from fxprune.artefacts.loading import plan_of
from fxprune.errors import InputError
from fxprune.ir.example_inputs import describe, normalise, realise, specs
from fxprune.ir.groups import Inputs, TensorSpec
from fxprune.latency.clock import Comparison, Latency, compare
from fxprune.models.named import load
from fxprune.report.numbers import si
from fxprune.report.rows import inputs_in_words
from fxprune.results import Size

FORMATS = ("text", "json")
PLAN = "plan.json"
MODULE, PROGRAM = "module", "exported program"


@dataclass(frozen=True)
class Bench:
    """Two models on the same inputs.

    Args:
        inputs: what they were given, in words.
        macs, params: of the original and of the small one, counted alike.
        measured: who was how fast.
        kinds: what was run of each.
    """

    inputs: str
    macs: tuple[int, int]
    params: tuple[int, int]
    measured: Comparison
    kinds: tuple[str, str] = (MODULE, MODULE)


def options(command: argparse.ArgumentParser) -> None:
    """What ``bench`` takes besides ORIGINAL, its weights and its input."""
    command.add_argument("small", metavar="SMALL", help="another MODEL, or a folder that compress --out wrote: its "
                         "plan is applied to MODEL, where that is no folder itself")
    command.add_argument("--batch", type=int, metavar="N", help="batch size; that of the example inputs if left out")
    command.add_argument("--repeats", type=int, default=50, metavar="N", help="timed passes of each (%(default)s)")
    command.add_argument("--warmup", type=int, default=10, metavar="N", help="passes before these (%(default)s)")
    command.add_argument("--threads", type=int, metavar="N", help="of PyTorch on the CPU; as they are set if left out")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (%(default)s)")
    command.add_argument("--channels-last", action="store_true", help="weights and images channels-last in memory")
    command.add_argument("--compile", action="store_true", help="measure torch.compile of both")
    command.add_argument("--format", choices=FORMATS, default="text")


def run(options: argparse.Namespace, example: Any) -> None:
    """Build both, time both, print the table."""
    (original, first), (small, second) = _models(options)
    if example is None:
        example = next((plan_of(name).inputs for name in (options.model, options.small) if _is_folder(name)), None)
    found = bench(original, small, example, batch=options.batch, device=options.device, repeats=options.repeats,
                  channels_last=options.channels_last, compiled=options.compile, warmup=options.warmup,
                  threads=options.threads)
    found = replace(found, kinds=(first, second))
    print(json.dumps(asdict(found), indent=2) if options.format == "json" else table(found))


def bench(original: nn.Module, small: nn.Module, example: Any = None, *, batch: int | None = None,
          device: str = "cpu", channels_last: bool = False, compiled: bool = False, **counts: Any) -> Bench:
    """Count and time two models on random inputs like ``example``.

    Args:
        original, small: they are copied, not moved.
        example: as for `fxprune.analyze`, or the inputs of a plan; inferred from the original where None.
        batch: the batch size; the example's where None.
        device, channels_last, compiled: how the copies are run.
        counts: ``repeats``, ``warmup`` and ``threads`` of `fxprune.compare`.

    Raises:
        InputError: no such device, or inputs that do not fit.
    """
    place = _device(device)
    if isinstance(example, Inputs):
        inputs = example
    else:
        inputs = analyze(original).inputs if example is None else describe(normalise(example))
    inputs = inputs if batch is None else _batched(inputs, batch)
    before, after = (Size.of(found, found.widths) for found in (analyze(model, inputs) for model in (original, small)))
    args, kwargs = realise(inputs, place, torch.Generator().manual_seed(0))
    models: list[Any] = [_moved(model, place) for model in (original, small)]
    if channels_last:
        models = [model.to(memory_format=torch.channels_last) for model in models]
        args, kwargs = tree_map_only(torch.Tensor, _channels_last, (args, kwargs))
    if compiled:
        models = [torch.compile(model) for model in models]
    measured = compare(models[0], models[1], args or kwargs, **counts)
    return Bench(inputs_in_words(inputs), (before.macs, after.macs), (before.params, after.params), measured)


def table(found: Bench) -> str:
    """Counted and measured ratios, one below the other."""
    measured, numbers = found.measured, (found.macs, found.params)
    rows = [(name, si(a), si(b), f"{a / b:.2f}×" if b else "") for name, (a, b) in
            zip(("MACs", "parameters"), numbers, strict=True)]
    low, high = measured.spread
    rows.append(("time, median", _ms(measured.original), _ms(measured.small), f"{measured.ratio:.2f}×"))
    rows.append(("time, quartiles", _range(measured.original), _range(measured.small), f"{low:.2f} – {high:.2f}×"))
    head = ("", "original", "small", "ratio")
    text = tabulate(rows, head, tablefmt="simple", colalign=("left", "right", "right", "right"), disable_numparse=True)
    kinds = "" if found.kinds == (MODULE, MODULE) else f"\n{found.kinds[0]} against {found.kinds[1]}"
    return f"{text}\n\n{measured.small.setting}, in turns; inputs: {found.inputs}{kinds}"


def _models(options: argparse.Namespace) -> tuple[tuple[nn.Module, str], tuple[nn.Module, str]]:
    """Both models, and what each one is."""
    if _is_folder(options.model):
        if options.weights:
            raise InputError(f"--weights are for a model by name, but {options.model!r} is a folder with its own; "
                             "leave --weights out")
        return _other(options.model, options.seed), _other(options.small, options.seed)
    original = _named(options.model, options.weights, options.seed)
    if not _is_folder(options.small):
        return (original, MODULE), _other(options.small, options.seed)
    # Times do not depend on which channels were the best ones, nor on what was trained since.
    return (original, MODULE), (apply(original, plan_of(options.small), weights="any"), MODULE)


def _other(name: str, seed: int) -> tuple[nn.Module, str]:
    return (load_artefact(name), PROGRAM) if _is_folder(name) else (_named(name, None, seed), MODULE)


def _is_folder(name: str) -> bool:
    return (Path(name) / PLAN).is_file()


def _named(name: str, weights: str | None, seed: int) -> nn.Module:
    try:
        return load(name, weights, seed).model
    except InputError:
        if not Path(name).is_dir():
            raise
        raise InputError(f"both places must hold a MODEL or a folder with a {PLAN}, and {name!r} has none; write it "
                         f"with fxprune compress MODEL --out {name}") from None


def _batched(inputs: Inputs, batch: int) -> Inputs:
    if batch < 1:
        raise InputError(f"--batch must be at least 1, got {batch}")
    first = next((spec.shape[0] for spec in specs(inputs) if spec.shape), None)

    def change(spec: TensorSpec) -> TensorSpec:
        fits = spec.shape and spec.shape[0] == first
        return replace(spec, shape=(batch, *spec.shape[1:])) if fits else spec

    args, kwargs = tree_map_only(TensorSpec, change, (inputs.args, dict(inputs.kwargs)))
    return replace(inputs, args=args, kwargs=kwargs)


def _device(name: str) -> torch.device:
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        words = " ".join(str(error).split())[:120]
        raise InputError(f"--device must be one that this PyTorch can use, got {name!r} ({words}); write --device cpu"
                         ) from error
    return place


def _moved(model: nn.Module, place: torch.device) -> nn.Module:
    """A copy on that device. An exported program names its own device in operators that make or move tensors."""
    moved = copy.deepcopy(model).to(place)
    for part in (part for part in moved.modules() if isinstance(part, GraphModule)):
        for node in part.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and isinstance(node.kwargs.get("device"), torch.device):
                node.update_kwarg("device", place)
        part.recompile()
    return moved


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _ms(latency: Latency) -> str:
    return f"{1000 * latency.median:.3g} ms"


def _range(latency: Latency) -> str:
    low, high = latency.spread
    return f"{1000 * low:.3g} – {1000 * high:.3g}"
