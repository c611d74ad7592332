"""Compress a language model of transformers, train it on with `Trainer`, and save it for plain transformers to load.

    pip install fxprune transformers accelerate
    python examples/transformers_llama.py --steps 200 --out small/

A small Llama with random weights stands in for ``AutoModelForCausalLM.from_pretrained``, so that it runs anywhere.
"""

import argparse
from collections.abc import Sequence

import torch
import transformers

import fxprune


def build() -> transformers.PreTrainedModel:
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      intermediate_size=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return transformers.LlamaForCausalLM(config)


def sentences(count: int, length: int = 16) -> list[dict[str, torch.Tensor]]:
    """Numbers that count on: something that a language model can learn."""
    starts = torch.randint(3, 40, (count,), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": ids, "labels": ids} for ids in (start + torch.arange(length) for start in starts)]


def main(arguments: Sequence[str] | None = None) -> transformers.PreTrainedModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=float, default=0.5, help="the fraction of each group to keep")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", default="small", help="the folder to write")
    options = parser.parse_args(arguments)

    model, data = build().eval(), sentences(64)
    inputs = {"input_ids": data[0]["input_ids"][None], "use_cache": False}
    small = fxprune.compress(model, inputs, channels=options.channels, form="module", uniform=True,
                             policy=fxprune.Policy(heads="whole"))
    print(fxprune.record(small))

    settings = transformers.TrainingArguments(options.out, max_steps=options.steps, per_device_train_batch_size=16,
                                              learning_rate=1e-2, save_strategy="no", report_to=[], disable_tqdm=True)
    transformers.Trainer(small, settings, train_dataset=data).train()
    small.save_pretrained(options.out)

    loaded = transformers.AutoModelForCausalLM.from_pretrained(options.out)
    print(f"hidden_size {loaded.config.hidden_size}, {loaded.config.num_attention_heads} heads, "
          f"{sum(p.numel() for p in loaded.parameters()):,} parameters")
    return loaded


if __name__ == "__main__":
    main()
