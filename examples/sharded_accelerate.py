"""DWGL with Accelerate, the weights in shards on every process (FSDP2); then the cut.

    accelerate launch --num-processes 2 examples/sharded_accelerate.py
    torchrun --nproc-per-node 2 examples/sharded_accelerate.py --cpu
"""

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from sharded_common import WIDTH, batches, cut, network, said

import fxprune
from fxprune.training.accelerate import Proximal

MACS = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args(arguments)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=100)
    accelerator = Accelerator(cpu=args.cpu, fsdp_plugin=plugin)
    if args.cpu:
        # Accelerate shards on GPUs only, though FSDP2 also runs on CPUs; there its state has to be told.
        accelerator.state._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    model = network()
    coupling = fxprune.analyze(model, torch.zeros(1, WIDTH))
    penalty = fxprune.DWGL.towards(coupling, macs=MACS, steps=60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, batches())
    proximal = Proximal(penalty, accelerator, optimizer, model)
    for _ in range(8):
        for x, y in loader:
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
            proximal()
    said(cut(model, coupling, MACS), penalty, accelerator.process_index)
    accelerator.end_training()


if __name__ == "__main__":
    main()
