"""Hugging Face ``transformers`` from small configs, where they are installed."""

from importlib.util import find_spec
from typing import Any

import torch

TOKENS = torch.arange(14).reshape(2, 7) % 30 + 3
PICTURE = torch.rand(2, 3, 32, 32)
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 60, "max_position_embeddings": 32}
MASK = torch.ones(2, 7, dtype=torch.long)
SPEECH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
          "conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_conv_pos_embeddings": 8,
          "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2, "layerdrop": 0.0}
# Class, config class, options, inputs. Those "with_…" return caches, or look at their masks unless they are compiled.
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
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", SPEECH, (torch.rand(2, 400),)),
    "bert_with_mask": ("BertModel", "BertConfig", TEXT, (TOKENS, MASK)),
    "gpt2_with_cache": ("GPT2LMHeadModel", "GPT2Config",
                        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 32}, (TOKENS,)),
    "llama_with_cache": ("LlamaForCausalLM", "LlamaConfig", {**TEXT, "num_key_value_heads": 2}, (TOKENS, MASK)),
    "roformer_with_mask": ("RoFormerModel", "RoFormerConfig", TEXT, (TOKENS, MASK)),
    "wav2vec2_with_mask": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config",
                           {**SPEECH, "classifier_proj_size": 16, "apply_spec_augment": False},
                           (torch.rand(2, 400), torch.ones(2, 400, dtype=torch.long))),
    "dpt": ("DPTForDepthEstimation", "DPTConfig",
            {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
             "intermediate_size": 64, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 16, 24, 32],
             "fusion_hidden_size": 16}, (torch.rand(1, 3, 64, 64),)),
    "sam_vision": ("SamVisionModel", "SamVisionConfig",
                   {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "output_channels": 16, "global_attn_indexes": [1], "window_size": 2,
                    "mlp_dim": 64}, (torch.rand(1, 3, 64, 64),)),
}


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    import transformers

    model, config, options, inputs = MODELS[name]
    return getattr(transformers, model)(getattr(transformers, config)(**options)), inputs


CASES = {} if find_spec("transformers") is None else {f"hf_{name}": (lambda name=name: build(name)) for name in MODELS}
