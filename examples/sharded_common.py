"""What the recipes for sharded training have in common: a network, data, and the cut at the end."""

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.data import DataLoader, TensorDataset

import fxprune
from fxprune.training.ranks import check_ranks

WIDTH, CLASSES = 16, 4


def network() -> nn.Sequential:
    """The same weights in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def batches(size: int = 16) -> DataLoader:
    """Which of the first four numbers is the largest."""
    x = torch.randn(512, WIDTH, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x[:, :CLASSES].argmax(1)), batch_size=size)


def accuracy(model: nn.Module) -> float:
    x = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(2))
    return (model(x).argmax(1) == x[:, :CLASSES].argmax(1)).double().mean().item()


def cut(sharded: nn.Module, coupling: fxprune.Coupling, macs: float) -> nn.Module:
    """Gather the weights into a plain module on every rank, and make the smaller one of it, the same on all."""
    plain = network()
    plain.load_state_dict(get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True)))
    plan = fxprune.plan(coupling, plain, macs=macs, vote="intersection")
    check_ranks(plan, plain)
    return fxprune.apply(plain, plan)


def said(small: nn.Module, penalty: fxprune.DWGL, rank: int) -> None:
    record = fxprune.record(small)
    print(f"rank {rank}: {penalty.line}; {record.after.macs / record.before.macs:.1%} of the MACs, accuracy "
          f"{accuracy(small):.1%}", flush=True)
