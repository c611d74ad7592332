"""diffusers' networks: a class, options that make it small, and the inputs that its forward is called with."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

BLOCKS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
IMAGE = torch.randn(2, 4, 16, 16)
TEXT = torch.randn(2, 5, 32)
STEP = torch.tensor([10, 20])
VIDEO = torch.randn(1, 4, 3, 8, 8)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
CROSS = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
         "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 32, "attention_head_dim": 8}
AUTOENCODER = {**BLOCKS, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}

MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "unet_2d": ("UNet2DModel", {**BLOCKS, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "in_channels": 4,
                                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 8,
                                "out_channels": 4}, {"sample": IMAGE, "timestep": STEP}),
    "unet_2d_condition": ("UNet2DConditionModel", {**BLOCKS, **CROSS},
                          {"sample": IMAGE, "timestep": STEP, "encoder_hidden_states": TEXT}),
    "unet_3d_condition": ("UNet3DConditionModel",
                          {**BLOCKS, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
                           "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"), "cross_attention_dim": 32,
                           "attention_head_dim": 8},
                          {"sample": VIDEO, "timestep": STEP[:1], "encoder_hidden_states": TEXT[:1]}),
    "unet_motion": ("UNetMotionModel",
                    {**BLOCKS, "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
                     "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"), "cross_attention_dim": 32,
                     "num_attention_heads": 2, "motion_num_attention_heads": 2},
                    {"sample": VIDEO, "timestep": STEP[:1], "encoder_hidden_states": torch.randn(3, 5, 32)}),
    "controlnet": ("ControlNetModel", {**BLOCKS, **{k: v for k, v in CROSS.items() if k != "up_block_types"},
                                       "conditioning_embedding_out_channels": (8, 16)},
                   {"sample": IMAGE, "timestep": STEP, "encoder_hidden_states": TEXT,
                    "controlnet_cond": torch.randn(2, 3, 32, 32)}),
    "autoencoder_kl": ("AutoencoderKL", {**AUTOENCODER, "latent_channels": 4}, {"sample": torch.randn(2, 3, 16, 16)}),
    "autoencoder_tiny": ("AutoencoderTiny", {"encoder_block_out_channels": (16, 16),
                                             "decoder_block_out_channels": (16, 16), "num_encoder_blocks": (1, 1),
                                             "num_decoder_blocks": (1, 1)},
                         {"sample": torch.randn(2, 3, 16, 16)}),
    "autoencoder_dc": ("AutoencoderDC", {"latent_channels": 8, "encoder_block_types": "ResBlock",
                                         "decoder_block_types": "ResBlock", "encoder_block_out_channels": (16, 32),
                                         "decoder_block_out_channels": (16, 32), "encoder_layers_per_block": (1, 1),
                                         "decoder_layers_per_block": (1, 1), "encoder_qkv_multiscales": ((), ()),
                                         "decoder_qkv_multiscales": ((), ())}, {"sample": torch.randn(2, 3, 16, 16)}),
    "autoencoder_oobleck": ("AutoencoderOobleck", {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4],
                                                   "decoder_channels": 8, "decoder_input_channels": 4,
                                                   "channel_multiples": [1, 2]}, {"sample": torch.randn(2, 2, 64)}),
    "vq": ("VQModel", {**AUTOENCODER, "num_vq_embeddings": 16}, {"sample": torch.randn(2, 3, 16, 16)}),
    "dit": ("DiTTransformer2DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "patch_size": 2, "sample_size": 16,
                                      "norm_num_groups": 8},
            {"hidden_states": IMAGE, "timestep": STEP, "class_labels": torch.tensor([1, 2])}),
    "pixart": ("PixArtTransformer2DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 32,
                                            "patch_size": 2, "sample_size": 16, "caption_channels": 32,
                                            "use_additional_conditions": False, "norm_num_groups": 8},
               {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": STEP,
                "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}),
    "transformer_2d": ("Transformer2DModel", {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 32,
                                              "norm_num_groups": 8, "cross_attention_dim": 32},
                       {"hidden_states": torch.randn(2, 32, 8, 8), "encoder_hidden_states": TEXT}),
    "sd3": ("SD3Transformer2DModel", {**HEADS, "sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4,
                                      "joint_attention_dim": 32, "caption_projection_dim": 32,
                                      "pooled_projection_dim": 24, "pos_embed_max_size": 16},
            {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "pooled_projections": torch.randn(2, 24),
             "timestep": STEP}),
    "flux": ("FluxTransformer2DModel", {**HEADS, "patch_size": 1, "in_channels": 4, "num_single_layers": 2,
                                        "joint_attention_dim": 32, "pooled_projection_dim": 24,
                                        "axes_dims_rope": (4, 4, 8)},
             {"hidden_states": torch.randn(2, 16, 4), "encoder_hidden_states": TEXT, "timestep": STEP / 100,
              "pooled_projections": torch.randn(2, 24), "img_ids": torch.randn(16, 3), "txt_ids": torch.randn(5, 3)}),
    "auraflow": ("AuraFlowTransformer2DModel", {"sample_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4,
                                                "num_mmdit_layers": 1, "num_single_dit_layers": 1,
                                                "attention_head_dim": 16, "num_attention_heads": 2,
                                                "joint_attention_dim": 32, "caption_projection_dim": 32,
                                                "pos_embed_max_size": 64},
                 {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": STEP / 100}),
    "sana": ("SanaTransformer2DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2,
                                        "cross_attention_head_dim": 16, "cross_attention_dim": 32,
                                        "caption_channels": 32, "sample_size": 16, "patch_size": 1},
             {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": STEP}),
    "hunyuan_dit": ("HunyuanDiT2DModel", {**HEADS, "in_channels": 4, "patch_size": 2, "sample_size": 16,
                                          "hidden_size": 32, "cross_attention_dim": 32, "cross_attention_dim_t5": 32,
                                          "pooled_projection_dim": 24, "text_len": 4, "text_len_t5": 4,
                                          "activation_fn": "gelu-approximate", "norm_type": "layer_norm"},
                    {"hidden_states": IMAGE, "timestep": STEP.float(), "encoder_hidden_states": torch.randn(2, 4, 32),
                     "text_embedding_mask": torch.ones(2, 4), "encoder_hidden_states_t5": torch.randn(2, 4, 32),
                     "text_embedding_mask_t5": torch.ones(2, 4), "image_meta_size": torch.ones(2, 6),
                     "style": torch.zeros(2, dtype=torch.long),
                     "image_rotary_emb": [torch.randn(64, 16), torch.randn(64, 16)]}),
    "wan": ("WanTransformer3DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "text_dim": 32, "freq_dim": 32,
                                      "ffn_dim": 48, "patch_size": (1, 2, 2), "rope_max_seq_len": 32},
            {"hidden_states": VIDEO, "timestep": STEP[:1], "encoder_hidden_states": TEXT[:1]}),
    "ltx_video": ("LTXVideoTransformer3DModel", {**HEADS, "in_channels": 4, "out_channels": 4,
                                                 "cross_attention_dim": 32, "caption_channels": 32},
                  {"hidden_states": torch.randn(2, 32, 4), "encoder_hidden_states": TEXT, "timestep": STEP,
                   "encoder_attention_mask": torch.ones(2, 5), "num_frames": 2, "height": 4, "width": 4}),
    "cogvideox": ("CogVideoXTransformer3DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "text_embed_dim": 32,
                                                  "time_embed_dim": 16, "sample_width": 8, "sample_height": 8,
                                                  "sample_frames": 9, "max_text_seq_length": 5},
                  {"hidden_states": torch.randn(2, 3, 4, 8, 8), "encoder_hidden_states": TEXT, "timestep": STEP}),
    "cogview4": ("CogView4Transformer2DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "text_embed_dim": 32,
                                                "time_embed_dim": 16, "condition_dim": 8, "rope_axes_dim": (16, 16)},
                 {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": STEP,
                  **{name: torch.tensor([[16, 16], [16, 16]]) for name in ("original_size", "target_size")},
                  "crop_coords": torch.zeros(2, 2)}),
    "lumina2": ("Lumina2Transformer2DModel", {"sample_size": 16, "patch_size": 2, "in_channels": 4, "hidden_size": 32,
                                              "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 2,
                                              "num_kv_heads": 1, "multiple_of": 16, "axes_dim_rope": (4, 4, 8),
                                              "axes_lens": (32, 32, 32), "cap_feat_dim": 32},
                {"hidden_states": IMAGE, "encoder_hidden_states": TEXT, "timestep": STEP / 100,
                 "encoder_attention_mask": torch.ones(2, 5, dtype=torch.bool)}),
    "mochi": ("MochiTransformer3DModel", {**HEADS, "in_channels": 4, "patch_size": 2, "pooled_projection_dim": 24,
                                          "text_embed_dim": 32, "time_embed_dim": 16},
              {"hidden_states": VIDEO, "encoder_hidden_states": TEXT[:1], "timestep": STEP[:1],
               "encoder_attention_mask": torch.ones(1, 5)}),
    "stable_audio": ("StableAudioDiTModel", {**HEADS, "sample_size": 16, "in_channels": 4, "out_channels": 4,
                                             "num_key_value_attention_heads": 2, "cross_attention_dim": 32,
                                             "cross_attention_input_dim": 32, "global_states_input_dim": 24,
                                             "time_proj_dim": 16},
                     {"hidden_states": torch.randn(2, 4, 16), "timestep": STEP, "encoder_hidden_states": TEXT,
                      "global_hidden_states": torch.randn(2, 1, 24),
                      "rotary_embedding": (torch.randn(17, 8), torch.randn(17, 8))}),
    "latte": ("LatteTransformer3DModel", {**HEADS, "in_channels": 4, "out_channels": 4, "sample_size": 8,
                                          "patch_size": 2, "cross_attention_dim": 32, "caption_channels": 32,
                                          "norm_type": "ada_norm_single", "video_length": 3, "attention_bias": True,
                                          "norm_elementwise_affine": False},
              {"hidden_states": VIDEO, "encoder_hidden_states": TEXT[:1], "timestep": STEP[:1]}),
    "qwen_image": ("QwenImageTransformer2DModel", {**HEADS, "patch_size": 2, "in_channels": 16, "out_channels": 4,
                                                   "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8)},
                   {"hidden_states": torch.randn(2, 16, 16), "encoder_hidden_states": TEXT, "timestep": STEP / 100,
                    "encoder_hidden_states_mask": torch.ones(2, 5, dtype=torch.long),
                    "img_shapes": [(1, 4, 4), (1, 4, 4)]}),
    "uvit_2d": ("UVit2DModel", {"hidden_size": 32, "cond_embed_dim": 32, "micro_cond_encode_dim": 8,
                                "micro_cond_embed_dim": 40, "encoder_hidden_size": 32, "vocab_size": 20,
                                "codebook_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                                "intermediate_size": 48, "block_out_channels": 32, "in_channels": 32,
                                "block_num_heads": 2, "sample_size": 8},
                {"input_ids": torch.randint(0, 16, (2, 8, 8)), "encoder_hidden_states": TEXT,
                 "pooled_text_emb": torch.randn(2, 32), "micro_conds": torch.rand(2, 5)}),
}


def names() -> list[str]:
    return [] if find_spec("diffusers") is None else list(MODELS)


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    import diffusers

    kind, options, inputs = MODELS[name]
    return getattr(diffusers, kind)(**options), inputs
