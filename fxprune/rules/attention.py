"""Attention: queries meet keys over the head size, which may shrink; keys are positions, because a softmax runs over
them. Heads and batches run along.
"""

import math
from collections.abc import Sequence
from typing import Any

from fxprune.rules.literals import Call
from fxprune.rules.operands import Kept, argument, broadcast, cost, freeze_dims, operands
from fxprune.rules.registry import Operand, register_rule

OVER_KEYS = "attention's softmax runs over it"


def _scale_kept(kept: Kept, args: Sequence[Any], kwargs: dict) -> tuple[Sequence[Any], dict]:
    """The default scale is that of the original head size, whatever is left of it."""
    if kwargs.get("scale") is not None:
        return args, kwargs
    return args, {**kwargs, "scale": len(kept(0, -1)) ** -0.5}


def _scale_written(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The same in the emitted graph."""
    query = argument(args, kwargs, 0, "query", None)
    if argument(args, kwargs, 6, "scale", None) is not None or site.masks(query)[-1].all():
        return target, args, kwargs
    return target, args, {**kwargs, "scale": 1.0 / math.sqrt(site.shape(query)[-1])}


@register_rule("aten::scaled_dot_product_attention", mixes=True, shrink=_scale_kept, literals=_scale_written)
def attention(op, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
    """``q [..., L, E]``, ``k [..., S, E]``, ``v [..., S, D]`` give ``[..., L, D]``."""
    op.tie(q[-1], k[-1])
    for x in (k, v):
        op.freeze(x[-2], OVER_KEYS)
    if is_causal:
        op.freeze(q[-2], "a causal mask counts positions")
    if enable_gqa:
        q, k, v = (Operand(_without_heads(op, x)) for x in (q, k, v))
        k, v = (Operand((*x.vectors[:-3], q[-3], *x.vectors[-2:])) for x in (k, v))
    batch = broadcast(op, *(Operand(x.vectors[:-2]) for x in (q, k, v)))
    if attn_mask is not None:
        op.freeze(attn_mask[-1], OVER_KEYS)
        broadcast(op, Operand((*batch, q[-2], op.fixed(len(k[-2])))), attn_mask)
    keys = op.fixed(len(k[-2]))
    cost(op, *batch, q[-2], keys, q[-1])
    cost(op, *batch, q[-2], keys, v[-1])
    return (*batch, q[-2], v[-1])


def _without_heads(op, x: Operand):
    """Heads of grouped queries belong to fewer heads of keys: which ones, their number says."""
    return freeze_dims(op, x, [len(x) - 3], "heads of grouped-query attention")


@register_rule("aten::_scaled_dot_product_attention_math", "aten::_scaled_dot_product_flash_attention_for_cpu",
               mixes=True)
def attention_with_weights(op, q, k, v, *args, **kwargs):
    """The same with a second output: weights, or their logarithmic sums. Met in exported programs, where the default
    scale is not written out, so that the head size must stay."""
    if kwargs.get("scale") is None:
        op.freeze(q[-1], "a default scale is taken from the head size")
    mask = next((x for x in operands(args, kwargs) if len(x)), None)
    out = attention(op, q, k, v, mask)
    second = [out[d] if d < len(out) - 1 and len(out[d]) == n else op.fixed(n) for d, n in enumerate(op.shapes[1])]
    return [out, tuple(second)]


# Whole layers in one call: they hold sizes and weights in an order of their own. They are only met where torch's fast
# path is on, and capture switches it off.
WHOLE_LAYERS = """
_native_multi_head_attention _transformer_encoder_layer_fwd _transform_bias_rescale_qkv
""".split()


@register_rule(*(f"aten::{name}" for name in WHOLE_LAYERS))
def whole_layer(op, *args, **kwargs):
    """Refused by name."""
    why = "a fused transformer layer; call torch.backends.mha.set_fastpath_enabled(False)"
    out = op.unknown(*operands(args, kwargs), why=why)
    return out if len(out) > 1 else out[0]
