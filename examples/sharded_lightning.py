"""DWGL with Lightning, the weights in shards on every process (FSDP2); then the cut.

    python examples/sharded_lightning.py --devices 2
"""

import argparse
from collections.abc import Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from sharded_common import WIDTH, batches, cut, network, said
from torch.distributed.fsdp import fully_shard

import fxprune
from fxprune.training.lightning import ProximalCallback

MACS = 0.5


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        for layer in list(self.net)[::2]:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.net, mesh=mesh)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Cut(lightning.Callback):
    """While the processes are still together."""

    def __init__(self, coupling: fxprune.Coupling, penalty: fxprune.DWGL):
        self.coupling, self.penalty = coupling, penalty

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        said(cut(pl_module.net, self.coupling, MACS), self.penalty, trainer.global_rank)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--out", default="lightning_logs")
    args = parser.parse_args(arguments)
    coupling = fxprune.analyze(network(), torch.zeros(1, WIDTH))
    penalty = fxprune.DWGL.towards(coupling, macs=MACS, steps=60)
    # All devices share the data; by default this strategy would give all of them to tensor parallelism.
    strategy = ModelParallelStrategy(data_parallel_size=args.devices, tensor_parallel_size=1)
    trainer = lightning.Trainer(accelerator=args.accelerator, devices=args.devices, strategy=strategy,
                                max_epochs=8, callbacks=[ProximalCallback(penalty, "net"), Cut(coupling, penalty)],
                                logger=False, enable_progress_bar=False, enable_model_summary=False,
                                default_root_dir=args.out)
    trainer.fit(Classifier(), batches())


if __name__ == "__main__":
    main()
