"""Movement: concatenation, slices, padding, shuffles, views, gathers and scatters."""

import torch
import torch.nn.functional as F
from nets import Net, Sample, buffer, image, pair, parameter, tokens
from torch import nn


def _assigned(x):
    y = x.new_zeros(x.shape[0], 8, 6, 6)
    y[:, :3] = x[:, 5:]
    y[:, 3:] = x[:, :5]
    return y


def _masked(x, mask, values):
    y = x.clone()
    y[mask] = values
    return y


def _embedding():
    return Net(lambda net, x: net.b(net.a(x).relu()), a=nn.Embedding(11, 8), b=nn.Linear(8, 5))


def _embedding_bag():
    return Net(lambda net, x: net.b(net.a(x).relu()), a=nn.EmbeddingBag(11, 8), b=nn.Linear(8, 5))


CAT = [
    pair("cat", lambda net, x, y: torch.cat([x, y], 1), into=16),
    pair("cat legacy empty", lambda net, x, y: torch.cat([torch.empty(0), x, y], 1), into=16),
    pair("cat of coordinates", lambda net, x, y: torch.cat([x, y, torch.linspace(0, 1, 6).expand(2, 1, 6, 6)], 1),
         into=17),
    pair("stack", lambda net, x, y: torch.stack([x, y], 2).flatten(1, 2), into=16),
    pair("stack and sum", lambda net, x, y: torch.stack([x, y]).sum(0)),
    pair("hstack", lambda net, x, y: torch.hstack([x, y]), into=16),
]

PIECES = [
    image("split", lambda net, x: torch.cat(torch.split(x, 3, 1)[::-1], 1)),
    image("split sizes", lambda net, x: x.split([2, 6], 1)[1], into=6),
    image("chunk", lambda net, x: torch.mul(*x.chunk(2, 1)), into=4),
    image("tensor_split", lambda net, x: torch.cat(torch.tensor_split(x, 3, 1)[::-1], 1)),
    image("unsafe_split", lambda net, x: torch.cat(torch.unsafe_split(x, 4, 1)[::-1], 1)),
    image("unsafe_chunk", lambda net, x: torch.cat(torch.unsafe_chunk(x, 2, 1)[::-1], 1)),
    image("slice", lambda net, x: x[:, :5], into=5),
    image("slice with a step", lambda net, x: x[:, 1::2], into=4),
    image("slice of the end", lambda net, x: torch.cat([x[:, -3:], x[:, :-3]], 1)),
    image("narrow", lambda net, x: x.narrow(1, 2, 4), into=4),
    image("select", lambda net, x: x * x[:, 3:4] + x[:, 3].unsqueeze(1)),
    image("unbind", lambda net, x: torch.stack(x.unbind(1), 1), prunable=False),
    image("unbind positions", lambda net, x: torch.stack(x.unbind(2), 2)),
    image("flip", lambda net, x: x.flip(1)),
    image("rot90", lambda net, x: x.rot90(1, (1, 2)).rot90(-1, (1, 2)) + x.rot90(2, (2, 1))),
    image("rot90 of a kernel", lambda net, x: F.conv2d(x, torch.rot90(net.w, 1, (2, 3)), padding=1)
          + F.conv2d(x, net.w.rot90(3, (-1, -2)), padding=1), into=7, w=parameter(7, 8, 3, 3)),
    image("roll", lambda net, x: x.roll(3, 1)),
    image("roll positions", lambda net, x: torch.roll(x, (1, 2), (2, 3))),
    image("channel_shuffle", lambda net, x: F.channel_shuffle(x, 2)),
    image("native_channel_shuffle", lambda net, x: F.native_channel_shuffle(x, 2)),
    image("pixel_shuffle", lambda net, x: F.pixel_shuffle(x, 2), into=2),
    image("pixel_unshuffle", lambda net, x: F.pixel_unshuffle(x, 2), into=32),
    image("glu", lambda net, x: F.glu(x, 1), into=4),
    image("unfold", lambda net, x: F.unfold(x, 2, stride=2).view(2, 32, 3, 3), into=32),
    image("fold", lambda net, x: F.fold(x.flatten(2)[..., :9], (6, 6), 2, stride=2), into=2),
    image("Tensor.unfold", lambda net, x: x.unfold(2, 2, 2).mean(-1)),
    image("unfold side by side", lambda net, x: x.unfold(1, 2, 2).mean(-1), into=4),
    image("unfold side by side, within windows", lambda net, x: x.unfold(1, 4, 4).sum(1).movedim(-1, 1), into=4),
    image("unfold that spans", lambda net, x: x.unfold(1, 8, 1).movedim(-1, 2).squeeze(1)),
    image("unfold that slides", lambda net, x: x.unfold(1, 4, 2).mean(-1), into=3, prunable=False),
]

REPEATED = [
    image("expand", lambda net, x: x + x.mean(1, keepdim=True).expand(2, 8, 6, 6)),
    image("expand minus one", lambda net, x: x * net.s.expand(2, -1, 6, 6), s=parameter(1, 8, 1, 1)),
    pair("expand_as", lambda net, x, y: x * y.mean(1, keepdim=True).expand_as(x)),
    image("broadcast_to", lambda net, x: x + torch.broadcast_to(x.mean(1, keepdim=True), (2, 8, 6, 6))),
    image("repeat", lambda net, x: x.repeat(1, 2, 1, 1), into=16),
    image("tile", lambda net, x: torch.tile(x, (2, 1, 1)), into=16),
    image("repeat of one", lambda net, x: x + x.mean(1, keepdim=True).repeat(1, 8, 1, 1)),
    image("repeat_interleave", lambda net, x: x.repeat_interleave(2, 1), into=16),
    image("repeat_interleave with output_size", lambda net, x: x.repeat_interleave(2, 1, output_size=2 * x.shape[1]),
          into=16),
    image("repeat_interleave by a tensor", lambda net, x: x.repeat_interleave(net.n, 1), into=12, prunable=False,
          n=buffer([1, 2, 1, 2, 1, 2, 1, 2])),
    image("pad channels", lambda net, x: F.pad(x, (0, 0, 0, 0, 2, 2)), into=12),
    image("pad with a value", lambda net, x: F.pad(x, (0, 0, 0, 0, 0, 4), value=1.0), into=12),
    image("pad positions", lambda net, x: F.pad(x, (1, 1, 2, 0))),
    image("crop by padding", lambda net, x: F.pad(x, (0, 0, 0, 0, -2, 1)), into=7),
    image("pad reflect", lambda net, x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
    image("pad replicate", lambda net, x: F.pad(x, (1, 1, 1, 1), mode="replicate")),
    image("pad circular", lambda net, x: F.pad(x, (1, 1, 1, 1), mode="circular")),
    image("ReflectionPad1d", lambda net, x: nn.ReflectionPad1d(2)(x), size=(9,)),
    image("ConstantPad2d", lambda net, x: torch.constant_pad_nd(x, (1, 1), 2.0)),
]

VIEWS = [
    image("shuffle by views", lambda net, x: x.view(2, 2, 4, 6, 6).transpose(1, 2).reshape(2, 8, 6, 6)),
    image("flatten", lambda net, x: net.l(x.flatten(1)).view(2, 7, 1, 1), into=7, l=lambda: nn.Linear(288, 7)),
    image("flatten NHWC", lambda net, x: net.l(x.permute(0, 2, 3, 1).reshape(2, -1)).view(2, 7, 1, 1), into=7,
          l=lambda: nn.Linear(288, 7)),
    image("to tokens", lambda net, x: net.l(x.flatten(2).mT).mT.reshape(2, 7, 6, 6), into=7, l=lambda: nn.Linear(8, 7)),
    image("unflatten", lambda net, x: x.unflatten(1, (4, 2)).sum(2), into=4),
    image("squeeze", lambda net, x: x.mean(2, keepdim=True).squeeze(2).unsqueeze(2)),
    image("movedim", lambda net, x: x.movedim(1, -1).movedim(-1, 1)),
    image("swapaxes", lambda net, x: x.swapaxes(1, 2).swapdims(1, 2)),
    image("view_as", lambda net, x: x.flatten(1).view_as(x) + x.flatten(1).reshape_as(x)),
    image("ravel", lambda net, x: x.ravel().view(2, 8, 6, 6)),
    image("atleast", lambda net, x: torch.atleast_2d(x)),
    image("t", lambda net, x: (x.mean((2, 3)).t().t())[..., None, None]),
    image("numpy T", lambda net, x: x.mean((2, 3)).T.T.H.mH[..., None, None]),
    image("adjoint", lambda net, x: x.adjoint().mH.mT),
    image("view_as_real", lambda net, x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x], -1))).sum(-1)),
    image("pixel norm by views", lambda net, x: x.reshape(2, 8, -1).mul(2).reshape(2, 8, 6, 6)),
    image("space to depth", lambda net, x: x.view(2, 8, 3, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 32, 3, 3),
          into=32),
    image("as_strided", lambda net, x: x.as_strided((2, 8, 6, 6), (288, 36, 6, 1)), prunable=False),
    image("low-rank update of a kernel", lambda net, x: F.conv2d(x.sum(1, keepdim=True).expand(-1, 8, -1, -1),
          net.w + (net.up @ net.down).view(net.w.shape), padding=1) * x, w=parameter(8, 8, 3, 3), up=parameter(24, 6),
          down=parameter(6, 24)),
    image("view across halves", lambda net, x: x.view(2, 12, 4, 6), into=12),
    image("ragged view", lambda net, x: x.view(2, 9, 4, 8), into=9, prunable=False),
    tokens("heads", lambda net, x: x.view(2, 4, 3, 4).transpose(1, 2).transpose(1, 2).flatten(2)),
]

GATHERS = [
    image("index by a list", lambda net, x: x[:, [0, 3, 5, 1]], into=4),
    image("index by a buffer", lambda net, x: x[:, net.i], i=buffer([7, 6, 5, 4, 3, 2, 1, 0])),
    image("index by a mask", lambda net, x: x[:, net.m], into=5,
          m=buffer([True, False, True, True, False, True, True, False])),
    image("index_select", lambda net, x: x.index_select(1, net.i), i=buffer([1, 0, 3, 2, 5, 4, 7, 6])),
    image("index by positions", lambda net, x: x[:, :, net.i], i=buffer([0, 2, 4])),
    image("index of points", lambda net, x: x[:, :, [0, 2], [1, 3]].unsqueeze(-1)),
    image("index from data", lambda net, x: x[:, x[0, :, 0, 0].argsort()], prunable=False),
    image("gather positions", lambda net, x: x.gather(2, (x > 0).long())),
    image("gather channels", lambda net, x: x.gather(1, (x > 0).long()), prunable=False),
    image("take_along_dim", lambda net, x: torch.take_along_dim(x, x.argsort(2), 2)),
    image("take_along_dim broadcast", lambda net, x: torch.take_along_dim(x, x.mean(1, keepdim=True).argsort(2), 2)),
    image("take_along_dim from one channel",
          lambda net, x: torch.take_along_dim(x.mean(1, keepdim=True), x.argsort(3), 3)),
    image("scatter positions", lambda net, x: torch.zeros_like(x).scatter(2, x.argsort(2), x)),
    image("scatter_add", lambda net, x: x.scatter_add(2, (x > 0).long(), x)),
    image("scatter_reduce", lambda net, x: x.scatter_reduce(2, (x > 0).long(), x, "amax")),
    image("scatter channels", lambda net, x: x.scatter(1, x.argsort(1), x), prunable=False),
    image("index_add", lambda net, x: x.index_add(2, torch.tensor([0, 2]), x[:, :, :2])),
    image("index_copy", lambda net, x: x.index_copy(3, torch.tensor([0, 2]), x[..., :2])),
    image("index_copy by a buffer", lambda net, x: x.index_copy(1, net.i, 2 * x[:, :3]), i=buffer([6, 1, 4])),
    image("index_copy into a buffer", lambda net, x: net.z.index_copy(3, torch.tensor([5, 2]), x[..., :2]) + x,
          z=lambda: torch.ones(2, 8, 6, 6)),
    image("index_add channels", lambda net, x: x.index_add(1, torch.tensor([1, 1, 6]), x[:, 5:])),
    image("index_fill by a buffer", lambda net, x: x.index_fill(1, net.i, 0.0), i=buffer([6, 1, 4])),
    image("index_reduce", lambda net, x: x.index_reduce(2, torch.tensor([0, 2]), x[:, :, :2], "amax")),
    image("index_fill", lambda net, x: x.index_fill(2, torch.tensor([0, 2]), 0.0)),
    image("index_fill channels", lambda net, x: x.index_fill(1, torch.tensor([0, 2]), 0.0)),
    image("index_put", lambda net, x: x.index_put((torch.tensor([0, 1]),), x[0] * 2)),
    image("masked_scatter", lambda net, x: x.masked_scatter(x > 0, x), prunable=False),
    tokens("masked_scatter of tokens", lambda net, x: torch.zeros_like(x).masked_scatter(
        x.mean(-1, keepdim=True) > 0, x)),
    tokens("masked_scatter by an expanded mask", lambda net, x: torch.zeros_like(x).masked_scatter(
        ~(x.mean(-1) > 0).unsqueeze(-1).expand_as(x), 2 * x)),
    image("masked_select", lambda net, x: x + torch.masked_select(x, x > 0).mean(), prunable=False),
    image("take", lambda net, x: x + x.take(torch.tensor([0, 5])).sum(), prunable=False),
    image("put", lambda net, x: x.put(torch.tensor([0, 5]), torch.zeros(2).to(x.dtype)), prunable=False),
    image("slice assignment", lambda net, x: _assigned(x)),
    image("slice_scatter", lambda net, x: x.slice_scatter(2 * x[:, :, 2:4], 2, 2, 4)),
    image("select_scatter", lambda net, x: x.select_scatter(2 * x[:, :, 2], 2, 2)),
    image("diagonal", lambda net, x: x.diagonal(0, 2, 3).unsqueeze(-1)),
    image("searchsorted", lambda net, x: torch.searchsorted(torch.tensor([0.0, 1.0]).to(x.dtype), x).to(x.dtype),
          prunable=False),
    image("one_hot", lambda net, x: x + F.one_hot((x > 0).long(), 2).sum(-1)),
    image("meshgrid", lambda net, x: x + torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")[0]),
    Sample("embedding", _embedding, (torch.randint(0, 11, (2, 4)),)),
    Sample("embedding_bag", _embedding_bag, (torch.randint(0, 11, (2, 4)),)),
    tokens("index by a mask of batch and time", lambda net, x: x[net.m], m=buffer([[True, False, True, True]] * 2)),
    tokens("index by a mask from data", lambda net, x: x[x.mean(-1) > -9]),
    tokens("masked tokens from a parameter", lambda net, x: _masked(x, x.mean(-1) > 0, net.t), t=parameter(12)),
    tokens("tokens written back by a mask", lambda net, x: _masked(torch.zeros_like(x), net.m, x[net.m]),
           m=buffer([[True, False, True, True]] * 2)),
    tokens("position table", lambda net, x: x + net.t[:, :4], t=parameter(1, 9, 12)),
    tokens("bias table by index", lambda net, x: x + net.t[net.i.view(-1)].view(4, 12), t=parameter(7, 12),
           i=buffer([[0, 1], [1, 0]])),
]


SAMPLES: list[Sample] = [*CAT, *PIECES, *REPEATED, *VIEWS, *GATHERS]
