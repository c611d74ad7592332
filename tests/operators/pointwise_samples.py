"""Elementwise operators. Arguments are brought into each function's domain first."""

import torch
import torch.nn.functional as F
from nets import Sample, buffer, image, pair, parameter, tokens
from torch import nn


def unary(names, prepare=lambda x: x, library=torch):
    """One sample per function of one tensor."""
    return [image(name, lambda net, x, f=getattr(library, name): f(prepare(x))) for name in names.split()]


REAL = """abs absolute angle arctan asinh arcsinh atan ceil conj conj_physical cos cosh deg2rad erf erfc exp exp2 expm1
fix floor frac i0 neg negative positive rad2deg real resolve_conj resolve_neg round sgn sigmoid sign sin sinc sinh
square tan tanh trunc nan_to_num clone detach"""
POSITIVE = "log log10 log1p log2 sqrt rsqrt reciprocal lgamma digamma acosh arccosh"
UNIT = "acos arccos asin arcsin atanh arctanh erfinv"
TESTS = "isfinite isinf isnan isneginf isposinf isreal logical_not signbit"
ACTIVATIONS = """celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 rrelu
selu silu softplus softshrink tanhshrink softsign"""
SPECIAL = "erf erfc exp2 expit expm1 i0 ndtr round sinc"

FLOATS = [
    *unary(REAL), *unary(POSITIVE, lambda x: x.square() + 1.5), *unary(UNIT, lambda x: 0.9 * x.tanh()),
    *[image(n, lambda net, x, f=getattr(torch, n): torch.where(f(x), x, x + 1)) for n in TESTS.split()],
    *unary(ACTIVATIONS, library=F),
    *[image(f"special.{n}", lambda net, x, f=getattr(torch.special, n): f(x)) for n in SPECIAL.split()],
    image("special.logs", lambda net, x: torch.special.log1p(x.square()) + torch.special.gammaln(x.square() + 1)
          + torch.special.digamma(x.square() + 1) + torch.special.entr(x.square() + 1)),
    image("special.unit", lambda net, x: torch.special.erfinv(0.9 * x.tanh()) + torch.special.logit(x.sigmoid())),
    image("logit", lambda net, x: torch.logit(x.sigmoid())),
    image("mvlgamma", lambda net, x: torch.mvlgamma(x.square() + 2, 2)),
    image("polygamma", lambda net, x: torch.polygamma(1, x.square() + 1)),
    image("threshold", lambda net, x: F.threshold(x, 0.1, 0.5)),
    image("complex", lambda net, x: torch.complex(x, x + 1).imag + torch.polar(x.abs(), x).real),
    image("bitwise_not", lambda net, x: torch.bitwise_not((4 * x).to(torch.int32)).to(x.dtype)),
    image("frexp", lambda net, x: torch.frexp(x)[0]),
    image("ldexp", lambda net, x: torch.ldexp(x, (2 * x).to(torch.int32))),
]

BINARY = """add sub subtract mul multiply maximum minimum fmax fmin atan2 arctan2 copysign hypot logaddexp logaddexp2
heaviside max min rsub"""
COMPARISONS = """eq ne gt ge lt le greater greater_equal less less_equal not_equal isclose logical_and logical_or
logical_xor"""
DIVISIONS = "div divide true_divide floor_divide fmod remainder"
INTEGERS = "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift gcd lcm"


def _ints(x):
    return (x.abs() * 2).to(torch.int32) + 1


PAIRS = [
    *[pair(n, lambda net, x, y, f=getattr(torch, n): f(x, y)) for n in BINARY.split()],
    *[pair(n, lambda net, x, y, f=getattr(torch, n): torch.where(f(x, y), x, y)) for n in COMPARISONS.split()],
    *[pair(n, lambda net, x, y, f=getattr(torch, n): f(x.abs() + 1, y.abs() + 1)) for n in DIVISIONS.split()],
    *[pair(n, lambda net, x, y, f=getattr(torch, n): f(_ints(x), _ints(y)).to(x.dtype)) for n in INTEGERS.split()],
    pair("operators on integers", lambda net, x, y: ((_ints(x) & _ints(y)) + (_ints(x) | _ints(y))
                                                     + (_ints(x) ^ _ints(y)) + (_ints(x) << _ints(y))
                                                     + (_ints(x) >> _ints(y))).to(x.dtype)),
    pair("pow", lambda net, x, y: (x.abs() + 1) ** y),
    pair("float_power", lambda net, x, y: torch.float_power(x.abs() + 1, y).to(x.dtype)),
    pair("xlogy", lambda net, x, y: torch.xlogy(x, y.abs() + 1) + torch.special.xlog1py(x, y.abs())),
    pair("nextafter", lambda net, x, y: torch.nextafter(x, y)),
    pair("where", lambda net, x, y: torch.where(x > y, x, y)),
    pair("lerp", lambda net, x, y: torch.lerp(x, y, 0.3)),
    pair("addcmul", lambda net, x, y: torch.addcmul(x, x, y, value=0.5)),
    pair("addcdiv", lambda net, x, y: torch.addcdiv(x, x, y.abs() + 1)),
    pair("clamp by tensors", lambda net, x, y: torch.clamp(x, min=y) + torch.clip(x, max=y)),
    pair("masked_fill", lambda net, x, y: x.masked_fill(y > 0, 0.5)),
    pair("in place", lambda net, x, y: x.clone().add_(y).mul_(y).sub_(1).clamp_(-2, 2).relu_()),
    pair("copy_", lambda net, x, y: torch.zeros_like(x).copy_(y) + x),
    pair("fill_ and zero_", lambda net, x, y: x + y.clone().fill_(2.0) + y.clone().zero_()),
    pair("in place and undefined at zero", lambda net, x, y: x.abs().add_(1).div_(y.abs() + 1).log_().reciprocal()),
    pair("inplace logic", lambda net, x, y: torch.where((x > 0).logical_and_(y > 0), x, y)),
    pair("broadcast_tensors", lambda net, x, y: torch.broadcast_tensors(x, y)[0] + y),
    pair("type_as", lambda net, x, y: x.type_as(y) + y),
]

SHAPED = [
    image("prelu", lambda net, x: net.p(x), p=lambda: nn.PReLU(8)),
    image("prelu shared", lambda net, x: net.p(x), p=nn.PReLU),
    tokens("prelu tokens", lambda net, x: net.p(x), p=lambda: nn.PReLU(4)),
    image("scalar", lambda net, x: 2 - (1 + x) * 0.5 / 3),
    image("clamp", lambda net, x: x.clamp(-1, 1).clamp_min(-0.5).clamp_max(0.5)),
    image("hardtanh_", lambda net, x: F.hardtanh_(x.clone())),
    image("layer scale", lambda net, x: x * net.s, s=parameter(8, 1, 1)),
    image("buffer", lambda net, x: x * net.s, s=buffer(torch.randn(1, 8, 1, 1))),
    image("spatial gate", lambda net, x: x * net.g(x).sigmoid(), g=lambda: nn.Conv2d(8, 1, 1)),
    image("channel gate", lambda net, x: x * net.g(x.mean((2, 3), keepdim=True)).sigmoid(),
          g=lambda: nn.Conv2d(8, 8, 1)),
    image("to", lambda net, x: x.to(torch.float32).to(x.dtype)),
    image("contiguous", lambda net, x: x.contiguous(memory_format=torch.channels_last)),
    image("fake_quantize", lambda net, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -8, 7)),
    image("fake_quantize by tensors", lambda net, x: torch.fake_quantize_per_tensor_affine(x, net.s, net.z, -8, 7),
          s=buffer(torch.tensor([0.1])), z=buffer(torch.tensor([0], dtype=torch.int32))),
    image("fake_quantize learnable", lambda net, x: torch._fake_quantize_learnable_per_tensor_affine(
        x, net.s, net.z, -8, 7), s=parameter(1), z=buffer(torch.zeros(1))),
    image("fake_quantize per channel", lambda net, x: torch.fake_quantize_per_channel_affine(x, net.s, net.z, 1, -8, 7),
          s=buffer(torch.arange(1, 9) / 10), z=buffer(torch.zeros(8, dtype=torch.int32))),
    image("fake_quantize per channel, learnable", lambda net, x: torch._fake_quantize_learnable_per_channel_affine(
        x, net.s.abs() + 0.1, net.z, 1, -8, 7), s=parameter(8), z=buffer(torch.zeros(8))),
    image("dropout", lambda net, x: F.dropout(x, 0.5, net.training)),
    image("dropout2d", lambda net, x: F.dropout2d(x, 0.5, net.training)),
    image("alpha_dropout", lambda net, x: F.alpha_dropout(x, 0.5, net.training)),
    image("feature_alpha_dropout", lambda net, x: F.feature_alpha_dropout(x, 0.5, net.training)),
    image("isin", lambda net, x: torch.where(torch.isin(x.round(), torch.tensor([0.0, 1.0])), x, -x)),
    image("bucketize", lambda net, x: torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5])).to(x.dtype)),
    image("where alone", lambda net, x: x * torch.where(x > 0)[0].sum(), prunable=False),
]

SAMPLES: list[Sample] = [*FLOATS, *PAIRS, *SHAPED]
