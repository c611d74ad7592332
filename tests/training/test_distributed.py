"""Two gloo processes: both end with the same weights and the same plan, bit for bit."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from penalty_nets import residual
from torch.nn.parallel import DistributedDataParallel

from fxprune import analyze
from fxprune.planning.draw import plan
from fxprune.training import DWGL, Ramp


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = residual()
    coupling = analyze(model, torch.zeros(2, 3, 8, 8))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.05, momentum=0.9)
    dwgl = DWGL(coupling, 0.05, direction=(0.0, 8.0), include_scale=True, schedule=Ramp(until=0.5, every=2))
    torch.manual_seed(rank)
    for _ in range(6):
        loss = wrapped(torch.randn(4, 3, 8, 8)).square().mean() + dwgl(wrapped)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        dwgl.proximal_(wrapped, 0.05)
        dwgl.step(wrapped)
    drawn = plan(coupling, wrapped.module, macs=0.5, vote="intersection")
    weights = [p.detach() for p in wrapped.parameters()]
    torch.save({"plan": drawn.to_dict()["keep"], "weights": weights, "state": dwgl.state_dict()},
               f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_every_rank_ends_with_the_same_plan(tmp_path):
    mp.spawn(worker, (free_port(), str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["plan"] == two["plan"] and one["plan"]
    assert one["state"] == two["state"] and one["state"]["factor"] > 0.1
    assert all(torch.equal(a, b) for a, b in zip(one["weights"], two["weights"], strict=True))
