"""Weights that do not fit: a Llama-shaped checkpoint of random bfloat16 weights, written, scored and sliced in shards.

    python benchmarks/shards.py --billions 0.1 1 3 --folder /somewhere/with/room

Each size runs in a process of its own; the folder is emptied after it. *Peak* is what the process itself held
(``RssAnon``, sampled every 20 ms): pages of mapped files belong to the system, which takes them back.
"""

import argparse
import json
import math
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tabulate import tabulate
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.shards.checkpoint import INDEX

SHARD = 2 ** 29  # bytes


class Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)
        self.one, self.two = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        q, k, v = (layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.two(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Language(nn.Module):
    def __init__(self, words: int, width: int, heads: int, inner: int, depth: int):
        super().__init__()
        self.embed, self.head = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.blocks = nn.Sequential(*(Block(width, heads, inner) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x)))


# Words, width, heads, inner width, blocks.
SIZES = {0.1: (8000, 768, 12, 2048, 12), 1.0: (32000, 2048, 16, 5504, 18), 3.0: (32000, 3072, 24, 8192, 26)}


def write(model: nn.Module, folder: Path) -> int:
    """Random weights, one shard in memory at a time; their bytes."""
    folder.mkdir(parents=True)
    files: dict[str, str] = {}
    state: dict[str, torch.Tensor] = {}
    generator, total = torch.Generator().manual_seed(0), 0

    def flush() -> None:
        name = f"model-{len(set(files.values())) + 1:05d}.safetensors"
        save_file(state, str(folder / name))
        files.update(dict.fromkeys(state, name))
        state.clear()

    for name, p in model.named_parameters():
        state[name] = torch.randn(p.shape, generator=generator, dtype=p.dtype).mul_(0.02)
        total += state[name].nbytes
        if sum(t.nbytes for t in state.values()) >= SHARD:
            flush()
    if state:
        flush()
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": files}))
    return total


class Peak:
    """The largest RssAnon while it is open, in bytes."""

    def __enter__(self) -> "Peak":
        self.bytes, self._open = 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._open:
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
            self.bytes = max(self.bytes, 1024 * int(line.split()[1]))
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()


def measured(billions: float, folder: Path) -> list[str]:
    torch.set_num_threads(1)
    with torch.device("meta"):
        model = Language(*SIZES[billions]).bfloat16().eval()
    total = write(model, folder / "src")
    times = []
    with Peak() as peak:
        start = time.perf_counter()
        coupling = fxprune.analyze(model, torch.zeros(1, 8, dtype=torch.int64, device="meta"))
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        plan = fxprune.score_shards(coupling, folder / "src", params=0.7, uniform=True, round_to=16)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
        proof = fxprune.verify_shards(plan, model)
        times.append(time.perf_counter() - start)
        assert proof.ok, proof
        start = time.perf_counter()
        done = fxprune.apply_shards(plan, folder / "src", folder / "dst")
        times.append(time.perf_counter() - start)
    parameters = sum(math.prod(p.shape) for p in model.parameters())
    return [f"{parameters / 1e9:.2f} B", f"{total / 2**30:.2f}", f"{done.written / 2**30:.2f}", str(len(done.files)),
            *(f"{t:.1f}" for t in times), f"{(times[1] + times[3]) / (total / 2**30):.1f}", f"{peak.bytes / 2**30:.2f}"]


def into(queue: "multiprocessing.Queue", billions: float, folder: Path) -> None:
    queue.put(measured(billions, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--billions", type=float, nargs="+", default=[0.1], choices=sorted(SIZES))
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    rows, context = [], multiprocessing.get_context("spawn")
    for billions in args.billions:
        queue, place = context.Queue(), args.folder / f"{billions:g}"
        try:
            process = context.Process(target=into, args=(queue, billions, place))
            process.start()
            rows.append(queue.get())
            process.join()
        finally:
            shutil.rmtree(place, ignore_errors=True)
        print(tabulate(rows, ("parameters", "read GiB", "written GiB", "shards", "analyze s", "score s", "prove s",
                              "slice s", "s per GiB", "peak GiB"), tablefmt="github", disable_numparse=True),
              flush=True)


if __name__ == "__main__":
    main()
