"""Small configurations of large models: every size that a configuration's defaults name, made small.

Sizes are known by their attribute's name, which transformers' configurations share; what one of them needs besides
stands in `options`.
"""

from collections.abc import Mapping
from typing import Any

WIDTHS = dict.fromkeys("""hidden_size d_model n_embd dim embed_dim embedding_size word_embed_proj_dim
encoder_hidden_size decoder_hidden_size emb_dim model_dim d_embed projection_dim text_embed_dim
vision_hidden_size""".split(), 32)
INNER = dict.fromkeys("""intermediate_size ffn_dim d_ff n_inner ffn_hidden_size encoder_ffn_dim decoder_ffn_dim
hidden_dim d_inner mlp_dim decoder_intermediate_size dim_feedforward encoder_intermediate_size block_ff_dim
moe_intermediate_size shared_expert_intermediate_size expert_dim expert_ffn_size intermediate_size_mlp
ffn_intermediate_size dense_intermediate_size""".split(), 48)
HEADS = dict.fromkeys("""num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
num_decoder_heads attention_heads decoder_num_attention_heads encoder_num_attention_heads num_encoder_attention_heads
num_decoder_attention_heads""".split(), 4)
SHARED = dict.fromkeys("""num_key_value_heads num_kv_heads decoder_num_key_value_heads
encoder_num_key_value_heads""".split(), 2)
HEAD = dict.fromkeys("head_dim d_head attention_head_dim d_kv kv_channels v_head_dim attention_head_size".split(), 8)
LAYERS = dict.fromkeys("""num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers
num_decoder_layers num_encoder_layers decoder_num_hidden_layers encoder_num_hidden_layers depth
num_hidden_groups decoder_num_layers encoder_num_layers""".split(), 2)
COUNTS = {
    **dict.fromkeys("vocab_size decoder_vocab_size text_vocab_size vocab_size_per_layer_input".split(), 99),
    **dict.fromkeys("""max_position_embeddings n_positions max_seq_len max_sequence_length max_target_positions
max_source_positions n_ctx max_seq_length""".split(), 64),
    **dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_top_k moe_k num_experts_per_token".split(), 2),
    **dict.fromkeys("n_group topk_group first_k_dense_replace n_shared_experts".split(), 1),
    **dict.fromkeys("q_lora_rank kv_lora_rank index_head_dim hidden_size_per_layer_input".split(), 16),
    **dict.fromkeys("qk_rope_head_dim qk_nope_head_dim".split(), 8),
    **dict.fromkeys("num_mel_bins input_feat_per_channel n_mels feature_size num_mel_channels".split(), 16),
    **dict.fromkeys("num_conv_pos_embeddings sliding_window attention_window local_attention window".split(), 8),
    **dict.fromkeys("num_conv_pos_embedding_groups mamba_n_heads mamba_num_heads n_mamba_heads".split(), 4),
    **dict.fromkeys("mamba_d_state state_size ssm_state_size time_step_rank mamba_dt_rank index_n_heads".split(), 8),
    **dict.fromkeys("num_queries num_object_queries num_query_tokens".split(), 10),
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "layerdrop": 0.0,
    "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "use_cache": False, "use_pretrained_backbone": False,
    "image_size": 32, "patch_size": 8, "index_topk": 4, "vocab_size_or_config_json_file": 99, "chunk_size": 16,
    "mamba_chunk_size": 16, "num_labels": 3, "mamba_d_head": 16, "mamba_head_dim": 16, "audio_vocab_size": 40,
    "num_feature_levels": 2, "apply_spec_augment": False, "classifier_proj_size": 16, "router_jitter_noise": 0.0,
}
SIZES: dict[str, Any] = {**WIDTHS, **INNER, **HEADS, **SHARED, **HEAD, **LAYERS, **COUNTS}


def small(kind: type, options: Mapping[str, Any]) -> Any:
    """A configuration of this class, its nested ones small as well. ``options`` have the last word; one
    that is None keeps the default."""
    default = kind()
    found = {name: size for name, size in SIZES.items()
             if getattr(default, name, None) is not None and _alike(getattr(default, name), size)}
    nested = {name: small(type(value), {}).to_dict() for name, value in vars(default).items()
              if hasattr(value, "model_type") and name not in options}
    return kind(**{name: value for name, value in {**found, **nested, **options}.items() if value is not None})


def _alike(value: Any, size: Any) -> bool:
    """Lists (a width per stage) are not replaced by one number."""
    return isinstance(value, (int, float)) and isinstance(value, bool) == isinstance(size, bool)
