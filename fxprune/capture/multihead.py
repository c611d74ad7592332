"""``nn.MultiheadAttention`` written out: its projections and ``scaled_dot_product_attention``.

The module's own forward checks that widths equal ``embed_dim`` and derives the scale from them, so that it could not
run with pruned heads. Written out, every size is an argument in the graph, and the scale is the original head's.
The parameters keep their names.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxprune.capture.patches import ATTENTION, FAST_PATH, instead, replaced


def forward(mha: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor,
            key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
            average_attn_weights: bool = True, is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """As ``nn.MultiheadAttention.forward``: query [L, N, E] ([N, L, E] with ``batch_first``, [L, E] unbatched)."""
    q, k, v = _projected(mha, query, key, value)
    batched = query.dim() == 3
    if batched and not mha.batch_first:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    if not batched:
        q, k, v = (t.unsqueeze(0) for t in (q, k, v))
    k, v, extra = _extended(mha, k, v)
    heads, size = mha.num_heads, mha.head_dim
    q, k, v = (t.unflatten(-1, (heads, size)).transpose(1, 2) for t in (q, k, v))
    mask = _mask(q, attn_mask, key_padding_mask, heads, extra)
    scale = 1.0 / math.sqrt(size)
    dropout = mha.dropout if mha.dropout > 0 and mha.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    out = mha.out_proj(out.transpose(1, 2).flatten(2))
    weights = _weights(q, k, mask, scale, average_attn_weights) if need_weights else None
    if not batched:
        return out.squeeze(0), None if weights is None else weights.squeeze(0)
    return (out if mha.batch_first else out.transpose(0, 1)), weights


def _projected(mha: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    if not mha._qkv_same_embed_dim:
        weights: tuple[Tensor, ...] = (mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight)
        biases = mha.in_proj_bias.chunk(3) if mha.in_proj_bias is not None else (None,) * 3
        return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    if query is key and key is value:
        return F.linear(query, mha.in_proj_weight, mha.in_proj_bias).chunk(3, -1)
    weights = mha.in_proj_weight.chunk(3)
    biases = mha.in_proj_bias.chunk(3) if mha.in_proj_bias is not None else (None,) * 3
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _extended(mha: nn.MultiheadAttention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
    """Keys and values [N, S, E] with the learned and the zero position, where the module has them."""
    extra = 0
    if mha.bias_k is not None and mha.bias_v is not None:
        k = torch.cat([k, mha.bias_k.expand(k.shape[0], -1, -1)], 1)
        v = torch.cat([v, mha.bias_v.expand(v.shape[0], -1, -1)], 1)
        extra += 1
    if mha.add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        extra += 1
    return k, v, extra


def _mask(q: Tensor, attn_mask: Tensor | None, padding: Tensor | None, heads: int, extra: int) -> Tensor | None:
    masks = []
    if attn_mask is not None:
        mask = _additive(attn_mask, q)
        masks.append(mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask)
    if padding is not None:
        padding = _additive(padding, q)
        masks.append(padding[:, None, None] if padding.dim() == 2 else padding[None, None, None])
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] + masks[1]
    return F.pad(mask, (0, extra)) if extra else mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, average: bool) -> Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return weights.mean(1) if average else weights


WRITTEN_OUT = {ATTENTION: instead(forward), FAST_PATH: instead(lambda: False)}


def unfused() -> AbstractContextManager[Any]:
    """Let transformer layers run operator by operator."""
    return replaced({FAST_PATH: instead(lambda: False)})


def of_torch() -> AbstractContextManager[Any]:
    """Let every ``nn.MultiheadAttention`` run its own forward again, where it is written out."""
    return replaced({ATTENTION: lambda original, *args, **kwargs: original(*args, **kwargs)})


def written_out() -> AbstractContextManager[Any]:
    """Let every ``nn.MultiheadAttention`` run as it is captured, and no layer on the fused fast path."""
    return replaced(WRITTEN_OUT)
