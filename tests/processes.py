"""Several processes on this machine, as ``torchrun`` would start them: gloo, one thread each."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(world: int, work: Callable[[int, int], Any], folder: Path) -> list[Any]:
    """What ``work(rank, world)`` gives on every rank; it must pickle."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    mp.spawn(_worker, (world, port, work, str(folder)), nprocs=world)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(world)]


def _worker(rank: int, world: int, port: int, work: Callable[[int, int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(work(rank, world), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
