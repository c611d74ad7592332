"""Reductions, normalisations, positions (pooling, resampling), constants, draws, transforms and torchvision's own."""

import torch
import torch.nn.functional as F
import torchvision.ops as ops
from nets import Net, Sample, buffer, image, noise, pair, parameter, tokens
from torch import nn


def reduce(name, function, **options):
    """``x * f(x)`` over channels, kept as a dimension, and over positions."""
    return [image(f"{name} over channels", lambda net, x: x * function(x, 1), **options),
            image(f"{name} over positions", lambda net, x: x * function(x, 2))]


REDUCTIONS = [
    *[sample for name in "sum mean amax amin logsumexp prod nansum nanmean var std count_nonzero".split()
      for sample in reduce(name, lambda x, d, f=getattr(torch, name): f(x, d).unsqueeze(d))],
    *reduce("any and all", lambda x, d: ((x > 0).any(d, keepdim=True) | (x > 0).all(d, keepdim=True))),
    *reduce("norm", lambda x, d: torch.norm(x, dim=d, keepdim=True)),
    *reduce("vector_norm", lambda x, d: torch.linalg.vector_norm(x, dim=d, keepdim=True)),
    *reduce("linalg.norm", lambda x, d: torch.linalg.norm(x, dim=d, keepdim=True)),
    *reduce("var_mean", lambda x, d: sum(torch.var_mean(x, d, keepdim=True))),
    *reduce("std_mean", lambda x, d: sum(torch.std_mean(x, d, keepdim=True))),
    *reduce("aminmax", lambda x, d: sum(torch.aminmax(x, dim=d, keepdim=True))),
    *reduce("cumsum", lambda x, d: x.cumsum(d)), *reduce("cumprod", lambda x, d: x.tanh().cumprod(d)),
    *reduce("logcumsumexp", lambda x, d: x.logcumsumexp(d)),
    *reduce("max", lambda x, d: x.max(d, keepdim=True)[0]),
    *reduce("min", lambda x, d: x.min(d, keepdim=True)[0]),
    *reduce("median", lambda x, d: x.median(d, keepdim=True)[0] + x.nanmedian(d, keepdim=True)[0]),
    *reduce("max with positions", lambda x, d: sum(x.max(d, keepdim=True)), prunable=False),
    *reduce("positions of a median", lambda x, d: x.median(d, keepdim=True).indices, prunable=False),
    *reduce("mode", lambda x, d: x.mode(d, keepdim=True)[0], prunable=False),
    *reduce("kthvalue", lambda x, d: x.kthvalue(2, d, keepdim=True)[0], prunable=False),
    *reduce("quantile", lambda x, d: x.quantile(0.5, d, keepdim=True) + x.nanquantile(0.5, d, keepdim=True),
            prunable=False),
    *reduce("argmax", lambda x, d: x.argmax(d, keepdim=True) + x.argmin(d, keepdim=True), prunable=False),
    *reduce("topk", lambda x, d: x.topk(2, d)[0].sum(d, keepdim=True), prunable=False),
    *reduce("sort", lambda x, d: x.sort(d)[0] + x.argsort(d), prunable=False),
    *reduce("cummax", lambda x, d: x.cummax(d)[0] + x.cummin(d)[0], prunable=False),
    *reduce("softmax", lambda x, d: x.softmax(d) + x.log_softmax(d), prunable=False),
    *reduce("special.softmax", lambda x, d: torch.special.softmax(x, d) + torch.special.logsumexp(x, d).unsqueeze(d),
            prunable=False),
    *reduce("diff", lambda x, d: x.diff(dim=d).sum(d, keepdim=True), prunable=False),
    image("msort", lambda net, x: x.msort()),
    image("max of all", lambda net, x: x / (x.abs().max() + x.abs().min() + x.median())),
    image("renorm", lambda net, x: x.renorm(2, 0, 1.0)),
    image("normalize", lambda net, x: F.normalize(x, dim=1)),
    image("softmax over all positions", lambda net, x: x.flatten(2).softmax(-1).view(2, 8, 6, 6)),
    image("trace", lambda net, x: x * torch.trace(x[0, 0])),
    image("losses", lambda net, x: x * (F.mse_loss(x, x + 1) + F.l1_loss(x, x + 1) + F.smooth_l1_loss(x, x + 1)
                                        + F.huber_loss(x, x + 1) + F.kl_div(x, x) + F.soft_margin_loss(x, x + 1)),
          prunable=False),
    image("entropies", lambda net, x: x * (F.binary_cross_entropy(x.sigmoid(), x.sigmoid())
                                           + F.binary_cross_entropy_with_logits(x, x.sigmoid())), prunable=False),
    image("cross_entropy", lambda net, x: x * F.cross_entropy(x, torch.zeros(2, 6, 6).long()), prunable=False),
    image("nll_loss", lambda net, x: x * F.nll_loss(x, torch.zeros(2, 6, 6).long()), prunable=False),
]

NORMS = [
    *[image(f"batch_norm {k}d", lambda net, x: net.n(x), size=(4,) * k, n=lambda layer=layer: layer(8))
      for k, layer in ((1, nn.BatchNorm1d), (2, nn.BatchNorm2d), (3, nn.BatchNorm3d))],
    image("batch_norm plain", lambda net, x: net.n(x), n=lambda: nn.BatchNorm2d(8, affine=False)),
    image("batch_norm without statistics", lambda net, x: net.n(x),
          n=lambda: nn.BatchNorm2d(8, track_running_stats=False)),
    image("instance_norm", lambda net, x: net.n(x), n=lambda: nn.InstanceNorm2d(8, affine=True)),
    image("instance_norm tracked", lambda net, x: net.n(x),
          n=lambda: nn.InstanceNorm2d(8, track_running_stats=True)),
    *[image(f"group_norm {g}", lambda net, x: net.n(x), n=lambda g=g: nn.GroupNorm(g, 8)) for g in (1, 2, 4, 8)],
    tokens("layer_norm", lambda net, x: net.n(x), n=lambda: nn.LayerNorm(12)),
    tokens("layer_norm plain", lambda net, x: F.layer_norm(x, (12,))),
    image("layer_norm of pictures", lambda net, x: net.n(x), n=lambda: nn.LayerNorm((8, 6, 6))),
    image("layer_norm channels last", lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
          n=lambda: nn.LayerNorm(8)),
    tokens("rms_norm", lambda net, x: net.n(x), n=lambda: nn.RMSNorm(12)),
    image("local_response_norm", lambda net, x: F.local_response_norm(x, 3), prunable=False),
    image("weight_norm", lambda net, x: net.c(x), into=7,
          c=lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 7, 3))),
    image("spectral_norm", lambda net, x: net.c(x), into=7,
          c=lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 7, 3))),
    image("norm_except_dim", lambda net, x: F.conv2d(x, net.w / torch.norm_except_dim(net.w, 2, 0)), into=7,
          w=parameter(7, 8, 1, 1)),
]



def _unpooled(x):
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, indices, 2)

def _unpooled3(x):
    y, indices = F.max_pool3d(x, 2, return_indices=True)
    return F.max_unpool3d(y, indices, 2)


DIMS = {1: (8,), 2: (6, 6), 3: (4, 4, 4)}
POSITIONS = [
    *[image(f"{name}{k}d", lambda net, x, f=getattr(F, f"{name}{k}d"): f(x, 2), size=size)
      for name in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
      for k, size in DIMS.items()
      if name != "lp_pool"],
    image("lp_pool2d", lambda net, x: F.lp_pool2d(x, 2, 2)),
    image("max_pool2d with indices", lambda net, x: _unpooled(x)),
    image("max_pool3d with indices", lambda net, x: _unpooled3(x), size=(4, 4, 4)),
    image("max_pool1d with indices", lambda net, x: F.max_pool1d(x, 2, return_indices=True)[0], size=(8,)),
    tokens("avg_pool over channels", lambda net, x: F.avg_pool1d(x, 2), into=6, prunable=False),
    tokens("avg_pool beside channels", lambda net, x: F.avg_pool2d(x[:, None], (2, 1)).squeeze(1)),
    *[image(f"interpolate {mode} {len(size)}d", lambda net, x, m=mode: F.interpolate(x, scale_factor=2, mode=m),
            size=size)
      for mode, size in (("nearest", (8,)), ("nearest", (6, 6)), ("nearest", (3, 3, 3)), ("nearest-exact", (8,)),
                         ("nearest-exact", (6, 6)), ("nearest-exact", (3, 3, 3)), ("linear", (8,)),
                         ("bilinear", (6, 6)), ("bicubic", (6, 6)), ("trilinear", (3, 3, 3)))],
    *[image(f"interpolate {mode} antialiased", lambda net, x, m=mode: F.interpolate(x, (4, 4), mode=m, antialias=True))
      for mode in ("bilinear", "bicubic")],
    image("grid_sample", lambda net, x: F.grid_sample(x, net.g(x).permute(0, 2, 3, 1).tanh(), align_corners=False),
          g=lambda: nn.Conv2d(8, 2, 1)),
    image("grid_sample 3d", lambda net, x: F.grid_sample(x, net.g(x).permute(0, 2, 3, 4, 1).tanh(),
                                                         align_corners=False), size=(4, 4, 4),
          g=lambda: nn.Conv3d(8, 3, 1)),
    image("affine_grid", lambda net, x: F.grid_sample(x, F.affine_grid(net.t.expand(2, 2, 3), [2, 3, 6, 6], False),
                                                      align_corners=False), t=parameter(1, 2, 3)),
]


MADE = [
    image("zeros", lambda net, x: torch.cat([x, torch.zeros(2, 4, 6, 6, dtype=x.dtype)], 1), into=12),
    image("ones and full", lambda net, x: x * torch.ones(8, 1, 1) + torch.full((1, 8, 1, 1), 2.0)),
    image("zeros of a size that is read", lambda net, x: x + torch.zeros(2, x.shape[1], 6, 6)),
    image("new_zeros", lambda net, x: x + x.new_zeros(2, 8, 1, 1) + x.new_ones(8, 1, 1) + x.new_full((8, 1, 1), 3.0)),
    image("empty", lambda net, x: x + x.new_empty(8, 1, 1).zero_() + torch.empty(8, 1, 1).fill_(1.0)),
    image("empty_strided", lambda net, x: x + torch.empty_strided((6, 6), (6, 1)).fill_(1.0)
          + x.new_empty_strided((6, 6), (6, 1)).fill_(1.0)
          + torch.empty_permuted((6, 6), (0, 1)).fill_(1.0)),
    image("likes", lambda net, x: x + torch.zeros_like(x) + torch.ones_like(x) + torch.full_like(x, 2)
          + torch.empty_like(x).fill_(1.0)),
    image("scalar_tensor", lambda net, x: x * torch.scalar_tensor(2.0)),
    image("arange over positions", lambda net, x: x + torch.arange(6.0) + torch.linspace(0, 1, 6)
          + torch.logspace(0, 1, 6)),
    image("arange over channels", lambda net, x: x + torch.arange(8.0)[:, None, None], prunable=False),
    tokens("eye added to a weight", lambda net, x: F.linear(x, net.w + torch.eye(12)), w=parameter(12, 12)),
    tokens("wide eye added to a weight", lambda net, x: F.linear(x, net.w + torch.eye(9, m=x.shape[-1])), into=9,
           w=parameter(9, 12)),
    image("eye and triangles", lambda net, x: x @ torch.eye(6).to(x.dtype) + x.tril() + x.triu(1)),
    image("indices of triangles", lambda net, x: x + torch.tril_indices(6, 6).sum() + torch.triu_indices(6, 6).sum()),
    image("triangle of channels", lambda net, x: x.permute(0, 2, 3, 1).tril().permute(0, 3, 1, 2), prunable=False),
    image("windows", lambda net, x: x * torch.hann_window(6) + torch.hamming_window(6) + torch.bartlett_window(6)
          + torch.blackman_window(6) + torch.kaiser_window(6)),
    image("diagonals", lambda net, x: x + x[:, :, 0].diag_embed() + x[0, 0, 0].diag() + x[0, 0, 0].diagflat()),
    image("block_diag", lambda net, x: x + torch.block_diag(x[0, 0, :3, :3], x[0, 0, 3:, 3:])),
    image("fill_diagonal_", lambda net, x: x + x[0, 0].clone().fill_diagonal_(0.0)),
    *[image(f"{name} in training", lambda net, x, f=f: x + f(x).to(x.dtype) if net.training else x) for name, f in {
        "rand_like": torch.rand_like, "randn_like": torch.randn_like, "bernoulli": lambda x: x.sigmoid().bernoulli(),
        "randint_like": lambda x: torch.randint_like(x, 3), "normal": lambda x: torch.normal(x, 1.0),
        "normal_": lambda x: x.clone().normal_(), "uniform_": lambda x: x.clone().uniform_(),
        "exponential_": lambda x: x.clone().exponential_(), "bernoulli_": lambda x: x.clone().bernoulli_(0.5),
        "rand": lambda x: torch.rand(x.shape[0], 1, 1, 1), "randn": lambda x: torch.randn(2, 8, 1, 1),
        "randint": lambda x: torch.randint(3, (2, 1, 1, 1)), "randperm": lambda x: torch.randperm(6),
        "poisson": lambda x: torch.poisson(x.abs()),
    }.items()],
]

def _regular(x):
    """Square matrices that are well conditioned."""
    return 0.1 * x + 3 * torch.eye(6).to(x.dtype)


def _positive(x):
    return x @ x.mT + torch.eye(6).to(x.dtype)


TRANSFORMS = [
    *[image(f"fft.{name}", lambda net, x, f=getattr(torch.fft, name): f(x).abs(), into=8)
      for name in "fft ifft rfft ihfft fft2 ifft2 rfft2".split()],
    image("fft.irfft", lambda net, x: torch.fft.irfft(torch.fft.rfft(x))
          + torch.fft.hfft(x.to(torch.complex64))[..., :6]),
    image("fft.irfft2", lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho"), norm="ortho")),
    image("fft.fftn", lambda net, x: torch.fft.ifftn(torch.fft.fftn(x, dim=(2, 3)), dim=(2, 3)).real
          + torch.fft.irfftn(torch.fft.rfftn(x, dim=(2, 3)), dim=(2, 3))),
    image("fft over channels", lambda net, x: torch.fft.fft(x, dim=1).real, prunable=False),
    image("fftshift", lambda net, x: torch.fft.ifftshift(torch.fft.fftshift(x, dim=(2, 3)), dim=(2, 3))),
    image("fftfreq", lambda net, x: x + torch.fft.fftfreq(6) + torch.fft.rfftfreq(10)),
    image("inverse", lambda net, x: torch.linalg.inv(_regular(x)) + torch.inverse(_regular(x)) + torch.linalg.pinv(x)
          + torch.pinverse(_regular(x)) + torch.linalg.inv_ex(_regular(x))[0]),
    image("factors", lambda net, x: torch.linalg.cholesky(_positive(x)) + torch.linalg.cholesky_ex(_positive(x))[0]
          + torch.linalg.qr(x)[1].abs() + torch.linalg.svdvals(x)[..., None]
          + torch.linalg.svd(x)[1][..., None] + torch.svd(x)[1][..., None]),
    image("eigenvalues", lambda net, x: x + torch.linalg.eigvalsh(x)[..., None] + torch.linalg.eigh(x)[0][..., None]
          + torch.linalg.eig(_positive(x))[0].abs().sum(-1)[..., None, None]
          + torch.linalg.eigvals(_positive(x)).abs().sum(-1)[..., None, None]),
    image("powers", lambda net, x: torch.linalg.matrix_power(x, 2) + torch.matrix_power(x, 2) + torch.matrix_exp(x)
          + torch.linalg.matrix_exp(x)),
    image("determinants", lambda net, x: x * (torch.linalg.det(x) + torch.det(x) + torch.logdet(_positive(x))
                                              + torch.linalg.slogdet(x)[0] + torch.slogdet(x)[1]
                                              + torch.linalg.matrix_rank(x))[..., None, None]),
    image("solve", lambda net, x: torch.linalg.solve(_regular(x), x) + torch.linalg.solve_ex(_regular(x), x)[0]
          + torch.linalg.solve_triangular(_regular(x), x, upper=True)
          + torch.triangular_solve(x, _regular(x))[0]),
    image("lu", lambda net, x: torch.linalg.lu(_regular(x))[2] + x),
    image("lu_unpack", lambda net, x: torch.lu_unpack(*torch.linalg.lu_factor(_regular(x)))[2] + x, prunable=False),
    image("lstsq", lambda net, x: torch.linalg.lstsq(_regular(x), x)[0], prunable=False),
    image("kron", lambda net, x: x + torch.kron(x[0, :, 0, 0], torch.ones(1).to(x.dtype))[:, None, None],
          prunable=False),
    tokens("covariance", lambda net, x: x + torch.cov(x[0].T) + torch.corrcoef(x[0].T), width=4, prunable=False),
    tokens("householder", lambda net, x: torch.linalg.householder_product(x.mT, x[:, :4].mT[:, :4, 0]).mT,
           prunable=False),
    image("stft", lambda net, x: torch.stft(x.flatten(0, 1), 4, return_complex=True).abs().sum((1, 2)).view(2, 8, 1),
          size=(12,), prunable=False),
    image("istft", lambda net, x: torch.istft(torch.stft(x.flatten(0, 1), 4, window=torch.ones(4).to(x.dtype),
                                                         return_complex=True), 4,
                                              window=torch.ones(4).to(x.dtype)).view(2, 8, -1),
          size=(12,), prunable=False),
    tokens("cross", lambda net, x: torch.linalg.cross(x, x.roll(1, 1)) + torch.cross(x, x.roll(1, 1), -1), width=3,
           prunable=False),
]

BOXES = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 5.0, 5.0]])
VISION = [
    image("roi_align", lambda net, x: ops.roi_align(x, net.r, (2, 2)), r=buffer(BOXES)),
    image("roi_pool", lambda net, x: ops.roi_pool(x, net.r, (2, 2)), r=buffer(BOXES)),
    image("ps_roi_align", lambda net, x: ops.ps_roi_align(x, net.r, (2, 2)), into=2, r=buffer(BOXES)),
    image("ps_roi_pool", lambda net, x: ops.ps_roi_pool(x, net.r, (2, 2)), into=2, r=buffer(BOXES)),
    image("deform_conv2d", lambda net, x: net.d(x, net.o(x)), into=7, d=lambda: ops.DeformConv2d(8, 7, 3, padding=1),
          o=lambda: nn.Conv2d(8, 18, 3, padding=1)),
    image("deform_conv2d modulated", lambda net, x: net.d(x, net.o(x), net.m(x).sigmoid()), into=7,
          d=lambda: ops.DeformConv2d(8, 7, 3, padding=1), o=lambda: nn.Conv2d(8, 18, 3, padding=1),
          m=lambda: nn.Conv2d(8, 9, 3, padding=1)),
    image("deform_conv2d of two offset groups", lambda net, x: net.d(x, net.o(x)), into=7, prunable=False,
          d=lambda: ops.DeformConv2d(8, 7, 3, padding=1), o=lambda: nn.Conv2d(8, 36, 3, padding=1)),
    Sample("mlp", lambda: Net(lambda net, x: net.b(net.a(x).relu()), a=nn.Linear(6, 8), b=nn.Linear(8, 5)),
           (noise(2, 6),)),
    pair("residual", lambda net, x, y: F.relu(x + y)),
]

SAMPLES: list[Sample] = [*REDUCTIONS, *NORMS, *POSITIONS, *MADE, *TRANSFORMS, *VISION]
