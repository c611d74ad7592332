"""Operators that torch.nn and torch.nn.functional do not call, but exported programs, old code and functionalised
graphs hold: the core ATen forms, the copying views, and the rest of torch's own names."""

import torch
import torch.nn.functional as F
import torchvision.ops as ops
from nets import Sample, buffer, image, pair, parameter, tokens

aten = torch.ops.aten


def _windowed(x):
    return aten.reflection_pad2d(x, [1, 1, 1, 1]) + aten.replication_pad2d(x, [1, 1, 1, 1])


CORE = [
    image("core softmax", lambda net, x: aten._softmax(x, 2, False) + aten._log_softmax(x, 3, False)
          + aten._safe_softmax(x, 3)),
    image("core conversions", lambda net, x: aten._to_copy(aten.alias(x), dtype=torch.float64).to(x.dtype)
          + aten.lift_fresh_copy(x)),
    image("core views", lambda net, x: aten._unsafe_view(x, [x.shape[0], -1]).view(2, 8, 6, 6)),
    image("core convolution", lambda net, x: aten._convolution(x, net.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
                                                               False, False, False, False), into=7,
          w=parameter(7, 8, 3, 3)),
    image("core batch norm", lambda net, x: aten._native_batch_norm_legit_no_training(
        x, net.w, net.v, net.m, net.s, 0.1, 1e-5)[0], w=parameter(8), v=parameter(8), m=buffer(torch.zeros(8)),
          s=buffer(torch.ones(8))),
    image("core batch norm in training", lambda net, x: aten._native_batch_norm_legit.no_stats(
        x, net.w, net.v, True, 0.1, 1e-5)[0] + torch.native_batch_norm(x, net.w, net.v, None, None, True, 0.1, 1e-5)[0]
          + aten._native_batch_norm_legit_functional(x, net.w, net.v, net.m, net.s, True, 0.1, 1e-5)[0],
          w=parameter(8), v=parameter(8), m=buffer(torch.zeros(8)), s=buffer(torch.ones(8))),
    tokens("core layer norm", lambda net, x: torch.native_layer_norm(x, [12], net.w, net.v, 1e-5)[0]
           + aten._fused_rms_norm(x, [12], net.w, 1e-5)[0], w=parameter(12), v=parameter(12)),
    image("core group norm", lambda net, x: torch.native_group_norm(x, None, None, 2, 8, 36, 2, 1e-5)[0],
          prunable=False),
    image("core weight norm", lambda net, x: F.conv2d(x, torch._weight_norm(net.w, net.g, 0)
                                                      + aten._weight_norm_interface(net.w, net.g, 0)[0]), into=7,
          w=parameter(7, 8, 1, 1), g=parameter(7, 1, 1, 1)),
    image("core dropout", lambda net, x: torch.native_dropout(x, 0.5, bool(net.training))[0]),
    image("core pooling", lambda net, x: aten._adaptive_avg_pool2d(x, [3, 3]) + F.fractional_max_pool2d(x, 2, (3, 3))
          if net.training else aten._adaptive_avg_pool2d(x, [3, 3])),
    image("core pooling 3d", lambda net, x: aten._adaptive_avg_pool3d(x, [2, 2, 2]), size=(4, 4, 4)),
    image("fractional_max_pool", lambda net, x: F.fractional_max_pool2d(
        x, 2, (3, 3), _random_samples=torch.full((2, 8, 2), 0.5, dtype=x.dtype))),
    image("fractional_max_pool3d", lambda net, x: F.fractional_max_pool3d(
        x, 2, (2, 2, 2), _random_samples=torch.full((2, 8, 3), 0.5, dtype=x.dtype)), size=(4, 4, 4)),
    image("core activations", lambda net, x: aten._prelu_kernel(x, net.w) + aten.log_sigmoid_forward(x)[0]
          + aten.rrelu_with_noise(x, torch.zeros_like(x)), w=parameter(1, 8, 1, 1)),
    image("core fft", lambda net, x: aten._fft_c2r(aten._fft_c2c(aten._fft_r2c(x, [3], 0, True), [2], 0, True), [3], 0,
                                                   6)),
    image("core grid", lambda net, x: torch.grid_sampler_2d(x, net.g.expand(2, 6, 6, 2), 0, 0, False),
          g=buffer(torch.zeros(1, 6, 6, 2))),
    image("core grid 3d", lambda net, x: torch.grid_sampler_3d(x, net.g.expand(2, 4, 4, 4, 3), 0, 0, False),
          size=(4, 4, 4), g=buffer(torch.zeros(1, 4, 4, 4, 3))),
    image("core index", lambda net, x: aten._unsafe_index(x, [None, None, net.i]), i=buffer([0, 2, 4])),
    image("core index_put", lambda net, x: aten._unsafe_index_put(x, [net.i], x[0] * 2)
          + aten._index_put_impl_(x.clone(), [net.i], x[0] * 2), i=buffer([0, 1])),
    image("core padding", lambda net, x: _windowed(x) + aten._pad_circular(x, [1, 1, 1, 1])
          + aten._pad_enum(x, [1, 1, 1, 1], 0)),
    image("core padding 1d", lambda net, x: aten.reflection_pad1d(x, [1, 1]) + aten.replication_pad1d(x, [1, 1]),
          size=(9,)),
    image("core padding 3d", lambda net, x: aten.reflection_pad3d(x, [1] * 6) + aten.replication_pad3d(x, [1] * 6),
          size=(4, 4, 4)),
    tokens("core attention", lambda net, x: aten._scaled_dot_product_attention_math(
        *(x.view(2, 4, 3, 4).transpose(1, 2),) * 3, scale=0.5)[0].transpose(1, 2).flatten(2)
           + aten._scaled_dot_product_flash_attention_for_cpu(*(x.view(2, 4, 3, 4).transpose(1, 2),) * 3, scale=0.5)[0]
           .transpose(1, 2).flatten(2)),
    tokens("core distances", lambda net, x: aten._cdist_forward(x, x.relu() + 1, 2.0, None) @ x),
    tokens("core bags", lambda net, x: x + aten._embedding_bag(net.t, net.i, net.o)[0].unsqueeze(1)
           + aten._embedding_bag_forward_only(net.t, net.i, net.o)[0].unsqueeze(1), t=parameter(5, 12),
           i=buffer([0, 1, 2, 4]), o=buffer([0, 2])),
    image("core losses", lambda net, x: x * aten.nll_loss(x[:, :, 0, 0], net.i, None, 1, -100)
          + aten.nll_loss2d(x, torch.zeros(2, 6, 6).long(), None, 1, -100), i=buffer([0, 1]), prunable=False),
    image("core linalg", lambda net, x: aten._linalg_eigh(x)[0][..., None] + aten._linalg_svd(x)[1][..., None]
          + aten._linalg_solve_ex(x + 9 * torch.eye(6).to(x.dtype), x)[0]),
    image("core norm", lambda net, x: x * aten.norm.ScalarOpt_dim(x, 2, [1], True)),
    image("as_strided_scatter", lambda net, x: torch.as_strided_scatter(x, x[0, 0], (6, 6), (6, 1)), prunable=False),
]

COPIES = [
    image("copying views", lambda net, x: torch.permute_copy(torch.permute_copy(x, (0, 2, 3, 1)), (0, 3, 1, 2))
          + torch.transpose_copy(torch.transpose_copy(x, 1, 2), 1, 2) + torch.detach_copy(x) + torch.alias_copy(x)
          + torch.squeeze_copy(torch.unsqueeze_copy(x, 1), 1)),
    image("copying pieces", lambda net, x: torch.unsafe_split_with_sizes(x, [4, 4], 1)[0], into=4),
    image("copying picks", lambda net, x: x + torch.unbind_copy(x, 3)[0][..., None]),
    tokens("copying transposes", lambda net, x: torch.t_copy(torch.t_copy(x.flatten(0, 1)))),
]

NAMES = [
    pair("concat", lambda net, x, y: torch.concat([x, torch.concatenate([y, x], 1)], 1), into=24),
    image("moveaxis", lambda net, x: torch.moveaxis(torch.moveaxis(x, 1, -1), -1, 1)),
    image("atleast_3d", lambda net, x: torch.atleast_3d(x)),
    image("linalg.diagonal", lambda net, x: torch.linalg.diagonal(x)[..., None]),
    image("linalg.matmul", lambda net, x: torch.linalg.matmul(x, x)),
    image("conj of complex", lambda net, x: torch.conj(torch.complex(x, x)).real + torch._conj(torch.complex(x, x)).real
          + torch._conj_physical(torch.complex(x, x)).real),
    image("special.xlogy", lambda net, x: torch.special.xlogy(x, x.abs() + 1) + torch.special.log_softmax(x, 3)),
    tokens("ger", lambda net, x: x + torch.ger(net.v, x[0, 0]), v=parameter(4)),
    pair("operators in place", lambda net, x, y: torch.where(_masks(x, y), x, y) + _bits(x, y).to(x.dtype)),
    image("fft of real spectra", lambda net, x: torch.fft.hfft2(x.to(torch.complex128))[..., :6].to(x.dtype)
          + torch.fft.ihfft2(x).abs().sum(-1, keepdim=True)
          + torch.fft.hfftn(x.to(torch.complex128), dim=(2, 3))[..., :6].to(x.dtype)
          + torch.fft.ihfftn(x, dim=(2, 3)).abs().sum(-1, keepdim=True)),
    image("draws in place", lambda net, x: x + x.clone().cauchy_() + x.clone().geometric_(0.5) + x.clone().random_(3)
          + x.clone().log_normal_() if net.training else x),
    image("lanczos", lambda net, x: F.interpolate(x, (4, 4), mode="lanczos", antialias=True)),
    image("nms", lambda net, x: x * ops.nms(x[0, 0, :, :4].abs().cumsum(-1), x[0, 0, :, 0], 0.5).sum()),
    *[image(name, lambda net, x, f=f: x * f(x).to(x.dtype).sum(), prunable=False) for name, f in {
        "nonzero": torch.nonzero, "argwhere": torch.argwhere, "histc": torch.histc, "unique": torch.unique,
        "nonzero_static": lambda x: torch.nonzero_static(x, size=4),
        "unique_dim": lambda x: torch.unique(x, dim=1), "unique_consecutive": lambda x: torch.unique_consecutive(x),
        "_unique": lambda x: torch._unique(x)[0], "histogram": lambda x: torch.histogram(x, 4)[0],
        "bincount": lambda x: torch.bincount(x.abs().long().flatten()),
        "multinomial": lambda x: torch.multinomial(x.abs().mean((2, 3)), 2),
        "cartesian_prod": lambda x: torch.cartesian_prod(x[0, :, 0, 0], x[1, :, 0, 0]),
        "combinations": lambda x: torch.combinations(x[0, :, 0, 0]),
        "segment_reduce": lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 1]), axis=0),
    }.items()],
]


def _masks(x, y):
    mask = x > 0
    mask &= y > 0
    mask |= y > 1
    mask ^= x > 1
    return mask


def _bits(x, y):
    bits = (x.abs() * 2).to(torch.int32)
    bits <<= 2
    bits >>= 1
    return bits


SAMPLES: list[Sample] = [*CORE, *COPIES, *NAMES]
