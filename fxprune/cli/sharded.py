"""``fxprune compress --checkpoint-dir``: a checkpoint that does not fit into memory, sliced where it lies."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fxprune
from fxprune.cli.stages import stage
from fxprune.errors import InputError
from fxprune.models.named import load
from fxprune.models.transformers_config import from_config
from fxprune.shards.checkpoint import Checkpoint

# What needs the model in memory: option -> what it is called when it was not given.
IN_MEMORY: dict[str, object] = {"recover": None, "data": None, "fold_constants": False, "latency": None,
                                "latency_ms": None, "weights": None, "table": None}
TOKENS = (1, 16)


def add_sharded(command: argparse.ArgumentParser) -> None:
    """The options."""
    command.add_argument("--checkpoint-dir", metavar="FOLDER", help="a sharded safetensors checkpoint (or its index, "
                         "or one file): scored where it lies, and sliced shard by shard into --out")
    command.add_argument("--config", metavar="FILE", help="with --checkpoint-dir, a transformers config.json in the "
                         "place of MODEL")


def compress_shards(options: argparse.Namespace, cut: dict[str, Any], example: Any, policy: fxprune.Policy) -> None:
    """Analyse on the meta device, score, prove on instances with few blocks, slice.

    Args:
        options: of the command line.
        cut: what `fxprune.score_shards` takes.
        example: the example inputs, or None.
        policy: how splits are pruned.
    """
    _check(options)
    stored = Checkpoint.open(options.checkpoint_dir)
    name = options.config or options.model
    with stage(f"building {name} on the meta device"):
        model = _in_the_dtypes_of(stored, _built(options))
    if example is None and options.config:
        example = {"input_ids": torch.zeros(TOKENS, dtype=torch.int64)}
    with stage(f"analysing {name}"):
        coupling = fxprune.analyze(model, _on_meta(example), policy=policy)
    with stage(f"scoring {options.checkpoint_dir}"):
        plan = fxprune.score_shards(coupling, options.checkpoint_dir, **cut)
    with stage(f"slicing into {options.out}"):
        done = fxprune.apply_shards(plan, options.checkpoint_dir, options.out,
                                    model=None if options.no_verify else model)
    before = sum(torch.Size(shape).numel() for _, shape, _ in plan.signature.entries)
    print(f"{name}: {plan}\n{before:,} parameters and buffers; {done.read:,} bytes read, {done.written:,} written "
          f"({done.written / done.read:.1%}) in {len(done.files)} shards{_resumed(done)}")
    print("not verified" if done.proof is None else done.proof)
    print(f"\nwritten: {options.out}")


def _check(options: argparse.Namespace) -> None:
    given = [name for name, nothing in IN_MEMORY.items() if getattr(options, name) != nothing]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} needs the model in memory, which --checkpoint-dir spares; "
                         "leave one of them out")
    if not options.out:
        raise InputError("--checkpoint-dir writes the new shards into a folder; add --out FOLDER")
    if (options.model is None) == (options.config is None):
        raise InputError("--checkpoint-dir needs a MODEL or --config FILE, and one of them")


def _built(options: argparse.Namespace) -> nn.Module:
    if options.config:
        return from_config(Path(options.config))
    with torch.device("meta"):
        return load(options.model, num_classes=options.num_classes).model


def _in_the_dtypes_of(stored: Checkpoint, model: nn.Module) -> nn.Module:
    """Configs build in float32 what checkpoints hold in less."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in stored.tensors:
            tensor.data = tensor.data.to(stored.tensors[name].dtype)
    return model


def _on_meta(example: Any) -> Any:
    if isinstance(example, dict):
        return {name: tensor.to("meta") for name, tensor in example.items()}
    return None if example is None else tuple(tensor.to("meta") for tensor in example)


def _resumed(done: fxprune.shards.Sliced) -> str:
    return f", {done.resumed} of them by an earlier run" if done.resumed else ""
