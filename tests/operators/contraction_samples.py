"""Contractions: convolutions, matrix products, einsum, attention, recurrent layers."""

import math

import torch
import torch.nn.functional as F
from nets import Net, Sample, image, noise, pair, parameter, tokens
from torch import nn

CONVOLUTIONS = [
    *[image(f"conv{k}d", lambda net, x: net.c(x), into=7, size=(5,) * k,
            c=lambda layer=layer: layer(8, 7, 3, padding=1, stride=2))
      for k, layer in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d))],
    *[image(f"conv_transpose{k}d", lambda net, x: net.c(x), into=7, size=(4,) * k,
            c=lambda layer=layer: layer(8, 7, 2, stride=2))
      for k, layer in ((1, nn.ConvTranspose1d), (2, nn.ConvTranspose2d), (3, nn.ConvTranspose3d))],
    image("conv2d same", lambda net, x: net.c(x), c=lambda: nn.Conv2d(8, 8, 3, padding="same")),
    image("conv2d grouped", lambda net, x: net.c(x), into=12, c=lambda: nn.Conv2d(8, 12, 3, groups=2)),
    image("conv2d depthwise", lambda net, x: net.c(x), c=lambda: nn.Conv2d(8, 8, 3, groups=8)),
    image("conv2d depthwise multiplier", lambda net, x: net.c(x), into=16, c=lambda: nn.Conv2d(8, 16, 3, groups=8)),
    image("conv_transpose2d grouped", lambda net, x: net.c(x), into=6,
          c=lambda: nn.ConvTranspose2d(8, 6, 2, 2, groups=2)),
    image("conv_transpose2d depthwise", lambda net, x: net.c(x), c=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8)),
    image("conv2d over positions", lambda net, x: net.c(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3),
          c=lambda: nn.Conv2d(6, 6, 1)),
    image("convolution", lambda net, x: torch.convolution(x, net.w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
          into=4, w=parameter(4, 8, 3, 3)),
    image("weight standardisation", lambda net, x: F.conv2d(x, _standard(net.w), None, 1, 1), into=4,
          w=parameter(4, 8, 3, 3)),
    image("conv2d unbatched", lambda net, x: net.c(x[0]).unsqueeze(0), c=lambda: nn.Conv2d(8, 8, 3)),
    image("conv2d twice", lambda net, x: net.c(net.c(x)), c=lambda: nn.Conv2d(8, 8, 3, padding=1)),
    image("conv2d depthwise twice", lambda net, x: net.c(net.c(x).relu()),
          c=lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    tokens("conv_tbc", lambda net, x: torch.conv_tbc(x, net.w, net.v, 1), into=7, w=parameter(3, 12, 7),
           v=parameter(7)),
]


def _standard(weight):
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True)
    return (weight - mean) / torch.sqrt(variance + 1e-5)


def _scores(x, y):
    return torch.softmax(x @ y.mT / math.sqrt(12), -1) @ y


PRODUCTS = [
    tokens("linear", lambda net, x: net.l(x), into=7, l=lambda: nn.Linear(12, 7)),
    tokens("linear over positions", lambda net, x: net.l(x.mT).mT, l=lambda: nn.Linear(4, 9)),
    tokens("matmul with a parameter", lambda net, x: x @ net.w, into=7, w=parameter(12, 7)),
    tokens("matmul of activations", lambda net, x: _scores(x, x.relu())),
    tokens("matmul of channels", lambda net, x: x @ torch.tanh(x.mT @ x)),
    tokens("bmm", lambda net, x: torch.bmm(torch.bmm(x, x.mT).tanh(), x)),
    tokens("baddbmm", lambda net, x: torch.baddbmm(x, torch.bmm(x, x.mT).tanh(), x)),
    tokens("baddbmm scaled", lambda net, x: torch.baddbmm(x, torch.bmm(x, x.mT).tanh(), x, beta=0.5, alpha=2.0)),
    tokens("addbmm", lambda net, x: x + torch.addbmm(x[0], torch.bmm(x, x.mT).tanh(), x)),
    tokens("mm", lambda net, x: torch.mm(x.flatten(0, 1), net.w), into=7, w=parameter(12, 7)),
    tokens("addmm", lambda net, x: torch.addmm(net.v, x.flatten(0, 1), net.w), into=7, w=parameter(12, 7),
           v=parameter(7)),
    tokens("mv", lambda net, x: x + torch.mv(x[0], net.w)[:, None], w=parameter(12)),
    tokens("addmv", lambda net, x: x + torch.addmv(net.v, x[0], net.w)[:, None], w=parameter(12), v=parameter(4)),
    tokens("dot", lambda net, x: x * torch.dot(x[0, 0], net.w) + torch.vdot(x[0, 1], net.w), w=parameter(12)),
    tokens("outer", lambda net, x: x + torch.outer(net.v, x[0, 0]) + torch.addr(x[0], net.v, x[0, 1]),
           v=parameter(4)),
    tokens("inner", lambda net, x: torch.inner(x, net.w), into=7, w=parameter(7, 12)),
    tokens("tensordot", lambda net, x: torch.tensordot(x, net.w, dims=([2], [0])), into=7, w=parameter(12, 7)),
    tokens("bilinear", lambda net, x: net.l(x, x.relu()), into=7, l=lambda: nn.Bilinear(12, 12, 7)),
    tokens("multi_dot", lambda net, x: torch.linalg.multi_dot([x[0], net.w, net.v]), into=7, w=parameter(12, 9),
           v=parameter(9, 7)),
    tokens("chain_matmul", lambda net, x: torch.chain_matmul(x[0], net.w, net.v), into=7, w=parameter(12, 9),
           v=parameter(9, 7)),
    tokens("vecdot", lambda net, x: x * torch.linalg.vecdot(x, x.relu())[..., None]),
    tokens("cosine_similarity", lambda net, x: x * F.cosine_similarity(x, x.relu() + 1, -1)[..., None]),
    tokens("pairwise_distance", lambda net, x: x * F.pairwise_distance(x, x.relu() + 1)[..., None]),
    tokens("cdist", lambda net, x: torch.cdist(x, x.relu() + 1) @ x),
    image("gram matrix", lambda net, x: (x.flatten(2) @ x.flatten(2).mT).tanh() @ x.flatten(2), size=(6,)),
]



def _heads(x):
    return x.unflatten(-1, (3, 4)).transpose(1, 2)


EINSUM = [
    tokens("einsum with a weight", lambda net, x: torch.einsum("bnc,co->bno", x, net.w), into=7, w=parameter(12, 7)),
    tokens("einsum implicit", lambda net, x: torch.einsum("bnc,bmc", x, x).tanh() @ x),
    tokens("einsum with dots", lambda net, x: torch.einsum("...c,oc->...o", x, net.w), into=7, w=parameter(7, 12)),
    tokens("einsum of heads", lambda net, x: torch.einsum("bhnd,bhmd->bhnm", _heads(x), _heads(x))
           .softmax(-1).sum(1) @ x),
    tokens("einsum of one", lambda net, x: x * torch.einsum("bnc->bn", x)[..., None]),
    tokens("einsum diagonal", lambda net, x: x[:, :, :4] + torch.einsum("bii->bi", x[..., :4]).unsqueeze(1), into=4),
    tokens("einsum of three", lambda net, x: torch.einsum("bnc,bmc,co->bno", x, x, net.w), into=7,
           w=parameter(12, 7)),
]


def _self_attention(**options):
    def forward(net, x):
        q, k, v = net.qkv(x).reshape(2, 4, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).reshape(2, 4, 12)

    return forward


def _grouped_attention(net, x):
    q, k, v = net.q(x).view(2, 4, 4, 3), net.k(x).view(2, 4, 2, 3), net.v(x).view(2, 4, 2, 3)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True)
    return out.transpose(1, 2).flatten(2)


def _explicit_attention(net, x):
    q, k, v = net.qkv(x).chunk(3, -1)
    q, k, v = (t.reshape(2, 4, 3, 4).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


QKV = {"qkv": lambda: nn.Linear(12, 36)}
ATTENTION = [
    tokens("attention", _self_attention(), **QKV),
    tokens("attention causal", _self_attention(is_causal=True), **QKV),
    tokens("attention with a scale", _self_attention(scale=0.3), **QKV),
    tokens("attention masked", _self_attention(attn_mask=torch.ones(4, 4, dtype=torch.bool).tril()), **QKV),
    tokens("attention of grouped queries", _grouped_attention, q=lambda: nn.Linear(12, 12), k=lambda: nn.Linear(12, 6),
           v=lambda: nn.Linear(12, 6)),
    tokens("attention by hand", _explicit_attention, **QKV),
    tokens("MultiheadAttention", lambda net, x: net.m(x, x, x, need_weights=False)[0],
           m=lambda: nn.MultiheadAttention(12, 3, batch_first=True)),
    tokens("MultiheadAttention with weights", lambda net, x: net.m(x, x, x)[0],
           m=lambda: nn.MultiheadAttention(12, 3, batch_first=True)),
    tokens("MultiheadAttention sequence first", lambda net, x: net.m(x, x, x)[0],
           m=lambda: nn.MultiheadAttention(12, 3)),
    tokens("TransformerEncoderLayer", lambda net, x: net.m(x),
           m=lambda: nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)),
    tokens("attention over channels", lambda net, x: (x.mT @ x).softmax(-1) @ x.mT, into=4, prunable=False),
]


def _recurrent(name, layer, prunable=True, **options):
    width = options.get("proj_size") or options.get("hidden_size", 10)
    width *= 2 if options.get("bidirectional") else 1
    return tokens(name, lambda net, x: net.r(x)[0], into=width,
                  r=lambda: layer(12, **{"hidden_size": 10, "batch_first": True, **options}), prunable=prunable)


def _packed(net, x):
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(net.r(packed)[0], batch_first=True)[0]


def _cell(build, pick=lambda state: state):
    def forward(net, x):
        state = net.c(x[:, 0])
        return pick(net.c(x[:, 1], state))

    return {"function": forward, "into": 10, "c": build}


RECURRENT = [
    _recurrent("lstm", nn.LSTM), _recurrent("gru", nn.GRU), _recurrent("rnn_tanh", nn.RNN),
    _recurrent("rnn_relu", nn.RNN, nonlinearity="relu"), _recurrent("lstm bidirectional", nn.LSTM, bidirectional=True),
    _recurrent("gru of two layers", nn.GRU, num_layers=2, bidirectional=True),
    _recurrent("lstm projected", nn.LSTM, proj_size=6), _recurrent("lstm without bias", nn.LSTM, bias=False),
    _recurrent("lstm time first", nn.LSTM, batch_first=False),
    tokens("lstm last state", lambda net, x: net.r(x)[1][0][-1], into=10,
           r=lambda: nn.LSTM(12, 10, batch_first=True)),
    tokens("packed gru", _packed, into=10, r=lambda: nn.GRU(12, 10, batch_first=True)),
    tokens("lstm_cell", **_cell(lambda: nn.LSTMCell(12, 10), lambda state: state[0])),
    tokens("gru_cell", **_cell(lambda: nn.GRUCell(12, 10))),
    tokens("rnn_tanh_cell", **_cell(lambda: nn.RNNCell(12, 10))),
    tokens("rnn_relu_cell", **_cell(lambda: nn.RNNCell(12, 10, nonlinearity="relu"))),
]

SHARED = [
    Sample("shared weight", lambda: Net(lambda net, x: net.b(F.linear(net.a(x), net.a.weight.t())), a=nn.Linear(6, 12),
                                        b=nn.Linear(6, 5)), (noise(2, 4, 6),)),
    pair("two branches", lambda net, x, y: x.relu() + y.sigmoid() * x),
]

SAMPLES: list[Sample] = [*CONVOLUTIONS, *PRODUCTS, *EINSUM, *ATTENTION, *RECURRENT, *SHARED]
