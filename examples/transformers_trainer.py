"""DWGL with the Trainer of transformers, on one process or several; then the cut.

    python examples/transformers_trainer.py --out runs/trainer
    torchrun --nproc-per-node 2 examples/transformers_trainer.py --out runs/trainer
"""

import argparse
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import fxprune
from fxprune.training.ranks import check_ranks
from fxprune.training.trainer import ProximalCallback

MACS, WORDS, CLASSES = 0.6, 20, 3


def sentences(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """The class of a sentence is its first word's."""
    words = torch.randint(0, WORDS, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row[0] % CLASSES} for row in words]


def main(arguments: Sequence[str] | None = None) -> nn.Module:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default="runs/trainer")
    parser.add_argument("--resume", action="store_true", help="go on with the last checkpoint in --out")
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                                     intermediate_size=64, vocab_size=WORDS, num_labels=CLASSES))
    example = {"input_ids": torch.zeros(2, 8, dtype=torch.int64)}
    coupling = fxprune.analyze(model, example)
    penalty = fxprune.DWGL.towards(coupling, macs=MACS, steps=60)
    settings = TrainingArguments(args.out, num_train_epochs=args.epochs, per_device_train_batch_size=16, seed=0,
                                 learning_rate=1e-3, report_to=[], logging_strategy="no", save_strategy="epoch",
                                 use_cpu=not torch.cuda.is_available(), disable_tqdm=True)
    trainer = Trainer(model, settings, train_dataset=sentences(512), callbacks=[ProximalCallback(penalty)])
    trainer.train(resume_from_checkpoint=args.resume or None)
    model = model.cpu().eval()
    plan = fxprune.plan(coupling, model, macs=MACS, vote="intersection")
    if dist.is_initialized():
        check_ranks(plan, model)
    small = fxprune.apply(model, plan)
    test = sentences(600, seed=1)
    right = small(input_ids=torch.stack([s["input_ids"] for s in test])).logits.argmax(1) == torch.stack(
        [s["labels"] for s in test])
    print(f"{penalty.line}; {plan}; accuracy {right.double().mean():.1%}", flush=True)
    return small


if __name__ == "__main__":
    main()
