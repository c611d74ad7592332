"""A budget in milliseconds: asked, predicted and measured; and what else takes the same time.

    python -m benchmarks.latency_budget --out docs/benchmarks/latency.md

Beside each result stand those that *take as long*, measured in turn with the original: a plan by MACs, one by MACs in
steps of 8 channels, and what Torch-Pruning makes (`peer_criteria.py`; where that package is installed). Of each, the
share of the MACs and of the scores that it keeps. One thread; weights are random (seed 0), so that scores are norms. A
row that is refused says why. Rows that ``--rows`` holds already are not measured again, and latency tables stay in
``--tables``, so that a run can be broken off and taken up.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from tabulate import tabulate
from torch import Tensor, nn

import fxprune
from benchmarks import peer
from benchmarks.peer_criteria import bisected, importances
from benchmarks.row_log import logged, read
from fxprune.errors import MeasurementError
from fxprune.latency.samples import interleaved
from fxprune.latency.stand import Stand, stand_of
from fxprune.latency.target import inputs_for, placed

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16", "yolov8n")
BACKENDS = ("eager", "compile", "onnxruntime")
KEYS = ("model", "backend", "batch", "asked")
SIZE = 224
# How near a rival's time comes to ours, in how many steps; seconds and rounds in turn with the original.
NEAR, STEPS, SECONDS, LEAST, MOST = 0.02, 7, 5.0, 7, 15


@dataclass(frozen=True)
class Rival:
    """Something else that takes as long. All in shares of the original's: time, MACs, those that were asked for, and
    the score that is kept, that of norms."""

    time: float = 0.0
    macs: float = 0.0
    asked: float = 0.0
    score: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class Row:
    """One budget. Times are shares of the original's, but for those that say otherwise."""

    model: str
    backend: str
    batch: int
    asked: float
    predicted: float = 0.0
    measured: float = 0.0
    forecast: float = 0.0
    original_ms: float = 0.0
    seconds: float = 0.0
    macs: float = 0.0
    score: float | None = None
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    refused: str = ""


def main() -> None:
    args = parse()
    args.tables.mkdir(parents=True, exist_ok=True)
    rows = read(args.rows, row_of)
    known = {tuple(getattr(row, key) for key in KEYS) for row in rows}
    rows += logged(args.rows, (row for target in itertools.product(args.models, args.backends, args.batches)
                               for row in measured(*target, known, args)))
    if args.out:
        args.out.write_text(report(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), choices=MODELS)
    add("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    add("--batches", nargs="+", type=int, default=[1, 8])
    add("--asked", nargs="+", type=float, default=[0.75, 0.5, 0.33])
    add("--clock", choices=("wall", "thread"), default="thread",
        help="thread: processor time of the one thread, for machines that others use")
    add("--minutes", type=float, default=3.0, help="of measuring, a table")
    add("--tables", type=Path, default=Path("runs/latency_tables"))
    add("--rows", type=Path, default=ROOT / "docs" / "benchmarks" / "latency.jsonl")
    add("--out", type=Path)
    return parser.parse_args()


def row_of(line: str) -> Row:
    found = json.loads(line)
    return Row(**{**found, "rivals": {name: Rival(**rival) for name, rival in found["rivals"].items()}})


def built(name: str) -> nn.Module:
    """With random weights."""
    torch.manual_seed(0)
    if name != "yolov8n":
        return torchvision.models.get_model(name, weights=None).eval()
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolov8n.yaml", verbose=False).eval()


def measured(name: str, backend: str, batch: int, known: set[tuple], args: argparse.Namespace) -> Iterator[Row]:
    """The rows of one network on one target that are not known yet."""
    shares = [share for share in args.asked if (name, backend, batch, share) not in known]
    if not shares:
        return
    model, x = built(name), torch.randn(1, 3, SIZE, SIZE)
    layout = "contiguous" if backend == "onnxruntime" else "channels_last"
    kind = {"compile": True} if backend == "compile" else {"backend": backend}
    target = fxprune.Target("cpu", threads=1, memory_format=layout, batch=batch, clock=args.clock, **kind)
    coupling = fxprune.analyze(model, x)
    table = fxprune.latency_table(coupling, model, target, minutes=args.minutes,
                                  path=args.tables / f"{name}-{SIZE}-{backend}-{batch}.json")
    scores = {group: score.mean(0) / score.mean() for group, score in fxprune.score(coupling, model, "l2").items()}
    stand = stand_of(model, coupling, target)
    for share in shares:
        start = time.perf_counter()
        try:
            small = fxprune.compress(model, x, latency=share, table=table, verify=False)
        except fxprune.BudgetError as error:
            yield Row(name, backend, batch, share, refused=str(error))
            continue
        except MeasurementError as error:  # another time it may do
            print(name, backend, batch, share, error)
            continue
        seconds, record = time.perf_counter() - start, fxprune.record(small)
        timing, found = record.latency, record.plan
        took = timing.measured / timing.original
        yield Row(name, backend, batch, share, timing.predicted / timing.original, took, timing.forecast,
                  1000 * timing.original, seconds, record.after.macs / record.before.macs,
                  kept_score(scores, kept(found)), dict(rivals(model, x, coupling, scores, stand, took)))


# Of Torch-Pruning: layer, whether outputs went, which.
History = Sequence[tuple[str, bool, Sequence[int]]]
Drawn = tuple[nn.Module, float, float | None]


def rivals(model: nn.Module, x: Tensor, coupling: fxprune.Coupling, scores: Mapping[str, np.ndarray], stand: Stand,
           share: float) -> Iterator[tuple[str, Rival]]:
    """What else takes that share of the time."""
    def ours(step: int, macs: float) -> Drawn:
        plan = fxprune.plan(coupling, model, macs=macs, round_to=step)
        small = fxprune.apply(model, plan, verify=False)
        record = fxprune.record(small)
        return small, record.after.macs / record.before.macs, kept_score(scores, kept(plan))

    def theirs(macs: float) -> Drawn:
        small, left = bisected(model, x, pruned, macs)
        return small, left, kept_score(scores, kept_by_peer(coupling, histories[small]))

    def pruned(ratio: float) -> nn.Module:
        small = copy.deepcopy(model)
        made = peer.pruner(small, x, ratio, global_pruning=True, max_pruning_ratio=0.95)
        made.step()
        histories[small] = made.DG.pruning_history()
        return small

    histories: dict[nn.Module, History] = {}
    clock = partial(timed, stand, coupling)
    first = as_long(partial(ours, 1), clock, share)
    yield "by MACs", first
    yield "by MACs, steps of 8", as_long(partial(ours, 8), clock, share, first.asked)
    if importances():
        try:
            yield "Torch-Pruning", as_long(theirs, clock, share, first.asked)
        except Exception as error:  # not ours; the table says so
            yield "Torch-Pruning", Rival(refused=f"{type(error).__name__}: {error}")


def as_long(draw: Callable[[float], Drawn], clock: Callable[[nn.Module], float], share: float,
            guess: float | None = None) -> Rival:
    """What takes that share of the time: the nearest of some shares of the MACs, found between too many and too few, as
    if the time rose evenly from the one to the other; the first is a guess, where there is one.

    >>> found = as_long(lambda macs: (macs, macs, None), lambda macs: 0.25 + 0.75 * macs, share=0.625)
    >>> round(found.time, 2), round(found.macs, 2)
    (0.62, 0.49)
    """
    few, many, tried = (0.0, 0.0), (1.0, 1.0), list[Rival]()
    macs = share if guess is None else guess
    for _ in range(STEPS):
        try:
            small, left, score = draw(macs)
        except fxprune.BudgetError:
            few = macs, few[1]
        else:
            tried.append(Rival(clock(small), left, macs, score))
            if abs(tried[-1].time / share - 1) <= NEAR:
                break
            few, many = (few, (macs, tried[-1].time)) if tried[-1].time > share else ((macs, tried[-1].time), many)
        way = float(np.clip((share - few[1]) / max(many[1] - few[1], 1e-9), 0.1, 0.9))
        macs = few[0] + way * (many[0] - few[0])
    return min(tried, key=lambda rival: abs(rival.time - share))


def timed(stand: Stand, coupling: fxprune.Coupling, small: nn.Module) -> float:
    """The share of the original's time that a network takes, in turn with it."""
    call = stand.backend.prepare(placed(small, stand.target), inputs_for(coupling.inputs, stand.target))
    times = interleaved([stand.model, call], 3, warmup=2)
    rounds = int(np.clip(SECONDS / times.sum(0).mean(), LEAST, MOST))
    times = np.concatenate([times, interleaved([stand.model, call], rounds - 3)], axis=1)
    return float(np.median(times[1] / times[0]))


def kept(plan: fxprune.Plan) -> dict[str, list[int]]:
    """Group -> the channels that stay, of the groups that lose some."""
    return {name: list(group.kept) for name, group in plan.groups.items()}


def kept_by_peer(coupling: fxprune.Coupling, history: History) -> dict[str, list[int]] | None:
    """The same of Torch-Pruning's history: layer, whether outputs went, and which; None where a layer is not known."""
    gone: dict[str, set[int]] = {}
    for layer, outputs, index in history:
        found = [(group, member) for group in coupling.groups.values() for member in group.members
                 if member.name == f"{layer}.weight" and member.dim == (0 if outputs else 1)]
        if not found:
            return None
        for group, member in found:
            gone.setdefault(group.name, set()).update(member.channel[np.isin(member.index, index)].tolist())
    return {name: [k for k in range(coupling.groups[name].size) if k not in lost] for name, lost in gone.items()}


def kept_score(scores: Mapping[str, np.ndarray], left: Mapping[str, list[int]] | None) -> float | None:
    """The share of all scores, in units of their group's mean, that is kept; None where it is not known what is."""
    if left is None:
        return None
    total = sum(float(score[left[name]].sum() if name in left else score.sum()) for name, score in scores.items())
    return total / sum(float(score.sum()) for score in scores.values())


def report(rows: list[Row]) -> str:
    """The rows, as Markdown."""
    done = [row for row in rows if not row.refused]
    errors = [abs(row.forecast - 1) for row in done]
    exact = [abs(row.measured / row.asked - 1) <= 0.03 for row in done]
    names = list(dict.fromkeys(name for row in done for name in row.rivals))
    beaten = {name: [row.score > rival.score for row in done if (rival := row.rivals.get(name)) is not None
                     and rival.score is not None and row.score is not None] for name in names}
    said = [f"Measured within 3 % of asked: {sum(exact)} of {len(done)} rows ({sum(not row.refused for row in rows)} "
            f"of {len(rows)} were not refused). The table's first prediction is off by {statistics.median(errors):.1%} "
            f"in the median. Search: {statistics.median(row.seconds for row in done):.0f} s in the median, at most "
            f"{max(row.seconds for row in done):.0f} s."] if done else []
    said += [f"{name}: keeps less of the scores at the same time in {sum(less)} of {len(less)} rows."
             for name, less in beaten.items() if less]
    lines = [[row.model, row.backend, row.batch, f"{row.asked:.2f}", *_cells(row, names)] for row in rows]
    head = ("model", "backend", "batch", "asked", "predicted", "measured", "first prediction / measured", "original ms",
            "search s", "MACs", "kept score", *names)
    return "\n\n".join([HEAD, *said, tabulate(lines, head, tablefmt="github", disable_numparse=True), *(
        f"{row.model}, {row.backend}, batch {row.batch}, {row.asked}: {row.refused}" for row in rows if row.refused)
    ]) + "\n"


def _cells(row: Row, names: list[str]) -> list[str]:
    if row.refused:
        return ["refused"]
    numbers = [f"{value:.3f}" for value in (row.predicted, row.measured, row.forecast)]
    return [*numbers, f"{row.original_ms:.1f}", f"{row.seconds:.0f}", f"{row.macs:.3f}", f"{row.score:.3f}",
            *(_rival(row.rivals.get(name)) for name in names)]


def _rival(rival: Rival | None) -> str:
    if rival is None:
        return ""
    if rival.refused:
        return "fails"
    score = "–" if rival.score is None else f"{rival.score:.3f}"
    return f"{rival.time:.3f}: {rival.macs:.3f}, {score}"


HEAD = """# A budget of time, kept

One CPU thread, images of 224 × 224, random weights (seed 0); the clock is the processor time of the measuring thread,
since others used the machine: another process kept the other core busy. PyTorch eager and `torch.compile` in
channels-last, ONNX Runtime as it exports. Times, MACs and kept scores (the channels' norms in units of their group's
mean) are shares of the original's. In the last columns stand results that take as long as ours, in turn with the
original: *time: MACs, kept score*. What is not here was not measured. The rows are in `latency.jsonl`. Written by

    python -m benchmarks.latency_budget --minutes 0.6 --backends eager onnxruntime
    python -m benchmarks.latency_budget --minutes 1.5 --backends compile --out docs/benchmarks/latency.md"""


if __name__ == "__main__":
    main()
