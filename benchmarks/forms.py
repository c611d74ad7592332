"""How much the two forms keep of the same models at ``channels=0.5``: random weights, small configurations.

    python benchmarks/forms.py [--only NAME ...] [--forms graph module]

Prints for each model the share of its parameters that the graph form and the module form keep, both verified.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import fxprune

IDS = {"input_ids": torch.ones(2, 12, dtype=torch.long)}
IMAGE = torch.randn(2, 3, 64, 64)
Made = tuple[nn.Module, Any]


def torchvision_models() -> dict[str, Callable[[], Made]]:
    from torchvision import models

    def vit() -> Made:
        return models.VisionTransformer(64, 16, 3, 6, 96, 192), IMAGE

    def swin() -> Made:
        return models.SwinTransformer([4, 4], 48, [2, 2, 2, 2], [3, 6, 12, 24], [4, 4]), IMAGE

    return {"ResNet-50": lambda: (models.resnet50(), IMAGE), "ConvNeXt-T": lambda: (models.convnext_tiny(), IMAGE),
            "Swin": swin, "ViT": vit}


def transformers_models() -> dict[str, Callable[[], Made]]:
    import transformers as t

    small = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 128}
    gated = {**small, "num_key_value_heads": 2, "pad_token_id": 0}
    tower = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    made: dict[str, Callable[[], Made]] = {
        "BERT": lambda: (t.BertModel(t.BertConfig(**small)), IDS),
        "RoBERTa": lambda: (t.RobertaModel(t.RobertaConfig(**small, pad_token_id=0)), IDS),
        "GPT-2": lambda: (t.GPT2LMHeadModel(t.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, bos_token_id=0,
                                                         eos_token_id=0)), IDS),
        "Llama": lambda: (t.LlamaForCausalLM(t.LlamaConfig(**gated)), IDS),
        "Qwen2": lambda: (t.Qwen2ForCausalLM(t.Qwen2Config(**gated)), IDS),
        "Mistral": lambda: (t.MistralForCausalLM(t.MistralConfig(**gated)), IDS),
        "T5": lambda: (t.T5ForConditionalGeneration(t.T5Config(
            vocab_size=128, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)),
            {**IDS, "decoder_input_ids": torch.ones(2, 6, dtype=torch.long)}),
        "Whisper": lambda: (t.WhisperForConditionalGeneration(t.WhisperConfig(
            vocab_size=128, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16,
            max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)),
            {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": torch.ones(2, 6, dtype=torch.long)}),
        "CLIP": lambda: (t.CLIPModel(t.CLIPConfig(
            text_config={**tower, "vocab_size": 128, "max_position_embeddings": 16, "eos_token_id": 2},
            vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=32)),
            {"input_ids": torch.arange(24).reshape(2, 12), "pixel_values": torch.randn(2, 3, 32, 32)}),
        "SegFormer": lambda: (t.SegformerForSemanticSegmentation(t.SegformerConfig(
            hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4],
            decoder_hidden_size=64)), IMAGE),
        "DETR": lambda: (t.DetrForObjectDetection(t.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
            backbone_config=t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1],
                                           out_features=["stage2"]),
            d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=128, decoder_ffn_dim=128, num_queries=10)), IMAGE),
    }
    return made


def diffusers_models() -> dict[str, Callable[[], Made]]:
    import diffusers

    def unet() -> Made:
        net = diffusers.UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=8,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
        return net, {"sample": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([1, 1]),
                     "encoder_hidden_states": torch.randn(2, 7, 32)}

    return {"SD U-Net": unet}


def ultralytics_models() -> dict[str, Callable[[], Made]]:
    from ultralytics import YOLO

    return {name: (lambda name=name: (YOLO(f"{name}.yaml", verbose=False).model, IMAGE))  # type: ignore[misc]
            for name in ("yolov8n", "yolo11n")}


PACKAGES = (torchvision_models, transformers_models, diffusers_models, ultralytics_models)


def kept(made: Callable[[], Made], form: str) -> tuple[float, float]:
    """The share of the parameters that a verified result keeps, and the seconds that it took."""
    torch.manual_seed(0)
    model, inputs = made()
    start = time.perf_counter()
    small = fxprune.compress(model.eval(), inputs, channels=0.5, form=form)
    done = fxprune.record(small)
    if form == "module" and type(small) is not type(model):
        raise TypeError(f"{type(model).__name__} became a {type(small).__name__}")
    return done.after.params / done.before.params, time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="*", help="these models")
    options.add_argument("--forms", nargs="*", default=["graph", "module"])
    chosen = options.parse_args()
    print("| model | graph | module |\n|---|---|---|")
    for package in PACKAGES:
        try:
            models = package()
        except ImportError as error:
            print(f"| {package.__name__} | not installed: {error} | |")
            continue
        for name, made in models.items():
            if chosen.only and name not in chosen.only:
                continue
            cells = []
            for form in chosen.forms:
                try:
                    share, seconds = kept(made, form)
                    cells.append(f"{share:.3f} ({seconds:.0f} s)")
                except Exception as error:  # one that fails is a row of the table
                    cells.append(f"{type(error).__name__}: {str(error)[:300]}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
