"""Hugging Face ``transformers`` from small configs, where they are installed."""

from importlib.util import find_spec
from typing import Any

import torch

TOKENS = torch.arange(14).reshape(2, 7) % 30 + 3
PICTURE = torch.rand(2, 3, 32, 32)
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 60, "max_position_embeddings": 32}
# Class, config class, options, inputs.
MODELS: dict[str, tuple[str, str, dict[str, Any], tuple[Any, ...]]] = {
    "bert": ("BertModel", "BertConfig", TEXT, (TOKENS,)),
    "bert_classifier": ("BertForSequenceClassification", "BertConfig", TEXT, (TOKENS,)),
    "roberta": ("RobertaModel", "RobertaConfig", TEXT, (TOKENS,)),
    "distilbert": ("DistilBertModel", "DistilBertConfig",
                   {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 60}, (TOKENS,)),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config",
             {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 32, "use_cache": False},
             (TOKENS,)),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**TEXT, "num_key_value_heads": 2, "use_cache": False}, (TOKENS,)),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**TEXT, "num_key_value_heads": 2, "use_cache": False},
                (TOKENS,)),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**TEXT, "num_key_value_heads": 2, "use_cache": False}, (TOKENS,)),
    "t5": ("T5Model", "T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                                   "vocab_size": 60, "use_cache": False}, (TOKENS, None, TOKENS[:, :5])),
    "vit": ("ViTModel", "ViTConfig", {**TEXT, "image_size": 32, "patch_size": 8}, (PICTURE,)),
    "deit": ("DeiTModel", "DeiTConfig", {**TEXT, "image_size": 32, "patch_size": 8}, (PICTURE,)),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**TEXT, "image_size": 32, "patch_size": 8}, (PICTURE,)),
    "swin": ("SwinModel", "SwinConfig", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2],
                                         "num_heads": [2, 4], "window_size": 4}, (PICTURE,)),
    "convnext": ("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [16, 32], "depths": [1, 2], "num_stages": 2},
                 (PICTURE,)),
    "resnet": ("ResNetForImageClassification", "ResNetConfig",
               {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2]}, (PICTURE,)),
    "segformer": ("SegformerModel", "SegformerConfig",
                  {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [4, 2], "hidden_sizes": [16, 32],
                   "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]},
                  (PICTURE,)),
    "whisper": ("WhisperModel", "WhisperConfig",
                {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                 "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 60,
                 "max_source_positions": 20, "max_target_positions": 16, "num_mel_bins": 8, "pad_token_id": 0,
                 "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "use_cache": False},
                (torch.rand(2, 8, 40), None, TOKENS[:, :5])),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config",
                 {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
                  "conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embeddings": 8,
                  "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2}, (torch.rand(2, 400),)),
}


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    import transformers

    model, config, options, inputs = MODELS[name]
    return getattr(transformers, model)(getattr(transformers, config)(**options)), inputs


CASES = {} if find_spec("transformers") is None else {f"hf_{name}": (lambda name=name: build(name)) for name in MODELS}
