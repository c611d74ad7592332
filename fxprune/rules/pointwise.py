"""Elementwise operators: output index i depends on input index i alone, so that all operands are tied index by index.

Left out: `prelu` (its weight aligns with dim 1: below), `where` with one argument (a gather: `gathers`), softmax and
the norms (an output depends on the whole dimension), `to.other` and `type_as` (the other tensor lends its dtype only).

Where a function has no value at zero, or an infinite one, a removed channel must not reach it: masked to zero it would
turn what reads it into a non-number. Verification computes these over the kept channels alone (``mixes``).
"""

from fxprune.rules.operands import BROADCAST, broadcast
from fxprune.rules.registry import register_rule

UNARY = """
abs absolute acos arccos asin asinh arcsin arcsinh atan atanh arctan arctanh angle bitwise_not ceil celu conj _conj
_conj_physical conj_physical cos cosh deg2rad elu erf erfc erfinv exp exp2 expm1 fix floor frac gelu hardshrink
hardsigmoid hardswish hardtanh i0 imag isfinite isinf isnan isneginf isposinf isreal leaky_relu log1p log_sigmoid
logical_not mish nan_to_num neg negative positive rad2deg real relu relu6 resolve_conj resolve_neg round selu sgn
sigmoid sign signbit silu sin sinc sinh softplus softshrink special_entr special_erf special_erfc special_erfinv
special_expit special_expm1 special_exp2 special_i0 special_log1p special_ndtr special_round special_sinc sqrt square
tan tanh threshold trunc
""".split()

BINARY = """
__and__ __or__ __xor__ __iand__ __ior__ __ixor__ __lshift__ __rshift__ __ilshift__ __irshift__ add atan2 arctan2
bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor clamp clamp_max clamp_min clip complex
copysign eq fmax fmin ge gcd greater greater_equal gt heaviside hypot isclose lcm ldexp le less less_equal logaddexp
logaddexp2 logical_and logical_or logical_xor lt maximum minimum mul multiply ne nextafter not_equal polar rsub sub
subtract special_xlog1py addcmul lerp masked_fill copy fill zero
""".split()

SINGULAR = """
digamma lgamma log log10 log2 logit reciprocal rsqrt acosh arccosh mvlgamma polygamma special_digamma special_gammaln
special_logit div divide float_power floor_divide fmod pow remainder true_divide xlogy special_xlogy addcdiv
""".split()

# Copies and conversions; what lends only its dtype or device is no operand: `converted`, below.
COPIES = """
_to_copy alias alias_copy clone detach_copy lift_fresh lift_fresh_copy pin_memory
""".split()

DROPOUT = "dropout feature_dropout alpha_dropout feature_alpha_dropout rrelu".split()


@register_rule(*(f"aten::{name}" for name in [*UNARY, *BINARY, *COPIES, *DROPOUT]))
def pointwise(op, *args, **kwargs):
    """All tensors among the arguments, broadcast."""
    return broadcast(op, args, kwargs)


@register_rule(*(f"aten::{name}" for name in SINGULAR), mixes=lambda *args, out=None, **kwargs: out is None)
def singular(op, *args, **kwargs):
    """Elementwise, and undefined or infinite at zero. What is written in place has to be there as a whole."""
    return broadcast(op, args, kwargs)


register_rule(*(f"aten::{name}_" for name in SINGULAR if not name.startswith("special_")))(pointwise)


@register_rule("aten::where")
def where(op, condition, *args):
    """Three arguments are elementwise; with the condition alone, the output's length depends on the data."""
    if not args:
        return op.unknown(condition, why="the length of where(condition) depends on the data")
    return broadcast(op, condition, args)


@register_rule("aten::isin")
def isin(op, elements, test_elements, **kwargs):
    """Elementwise in ``elements``; the set that they are looked up in is read as a whole."""
    if not hasattr(elements, "vectors"):
        return op.unknown(test_elements, why="isin reads its set as a whole")
    if hasattr(test_elements, "vectors"):
        op.unknown(test_elements, why="isin reads its set as a whole")
    return elements.vectors


@register_rule("aten::to", "aten::type_as")
def converted(op, x, *args, **kwargs):
    """``x.to(other)`` takes dtype and device from the other tensor, nothing of its shape."""
    return x.vectors


@register_rule("aten::prelu", "aten::_prelu_kernel")
def prelu(op, x, weight):
    """The weight holds one slope per channel, and channels are dim 1."""
    if len(weight) != 1:
        return broadcast(op, x, weight)
    dim = 1 if len(x) > 1 else 0
    if len(weight[0]) == 1:
        op.freeze(weight[0], BROADCAST)
    elif len(x):
        op.tie(x[dim], weight[0])
    return x.vectors


@register_rule("aten::fake_quantize_per_tensor_affine", "aten::_fake_quantize_learnable_per_tensor_affine")
def fake_quantize(op, x, scale, zero_point, *args, **kwargs):
    """Elementwise; scale and zero point are numbers, or tensors of one."""
    for own in (scale, zero_point):
        for vector in getattr(own, "vectors", ()):
            op.freeze(vector, BROADCAST)
    return x.vectors


@register_rule("aten::fake_quantize_per_channel_affine", "aten::_fake_quantize_learnable_per_channel_affine")
def fake_quantize_per_channel(op, x, scale, zero_point, axis, *args, **kwargs):
    """Every index of ``axis`` has a scale and a zero point of its own."""
    for own in (scale, zero_point):
        op.tie(x[axis], own[0])
    return x.vectors


@register_rule("aten::rrelu_with_noise")
def rrelu_with_noise(op, x, noise, *args, **kwargs):
    """The noise is a scratch tensor of the input's shape."""
    return broadcast(op, x, noise)


@register_rule("aten::native_dropout")
def native_dropout(op, x, *args, **kwargs):
    """The output and the mask that was drawn."""
    return [x.vectors, x.vectors]


@register_rule("aten::frexp", "aten::log_sigmoid_forward")
def two_outputs(op, x, *args, **kwargs):
    """Elementwise, with two outputs of the input's shape."""
    return [x.vectors for _ in op.shapes]


@register_rule("aten::broadcast_tensors")
def broadcast_tensors(op, tensors):
    """Every output has the broadcast shape."""
    out = broadcast(op, tensors)
    return [out for _ in op.shapes]
