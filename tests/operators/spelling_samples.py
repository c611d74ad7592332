"""Calls that hold sizes, spelled as operators (as exported programs spell them) and in torch's rarer names."""

import torch
import torch.nn.functional as F
from nets import Sample, buffer, image, parameter, tokens

aten = torch.ops.aten
BACKWARDS = buffer([7, 6, 5, 4, 3, 2, 1, 0])


def _backwards(pieces, dim=1):
    return torch.cat(pieces[::-1], dim)


def _whole(x):
    return x.mean(1, keepdim=True)


RESHAPED = [
    image("aten.view", lambda net, x: aten.view.default(aten.view.default(x, [2, 2, 4, 6, 6]), [2, 8, 6, 6])),
    image("aten.reshape", lambda net, x: aten.reshape(x, [2, 8, -1]).reshape(2, 8, 6, 6)),
    image("aten.unflatten", lambda net, x: aten.unflatten.int(x, 1, [4, 2]).sum(2), into=4),
    image("aten.squeeze", lambda net, x: aten.squeeze.dim(x.mean(2, keepdim=True), 2).unsqueeze(2)),
    image("aten.expand", lambda net, x: x + aten.expand.default(_whole(x), [2, 8, 6, 6])),
    image("aten.repeat", lambda net, x: aten.repeat.default(x, [1, 2, 1, 1]), into=16),
    image("view_copy", lambda net, x: torch.view_copy(x, (2, 8, 36)).view(2, 8, 6, 6)),
    image("expand_copy", lambda net, x: x + torch.expand_copy(_whole(x), (2, 8, 6, 6))),
]

CUT = [
    image("hsplit", lambda net, x: _backwards(torch.hsplit(x, 2))),
    image("hsplit of sizes", lambda net, x: _backwards(x.hsplit([3, 5]))),
    image("vsplit", lambda net, x: _backwards(x.transpose(0, 1).vsplit(2), 0).transpose(0, 1)),
    image("dsplit", lambda net, x: _backwards(x.transpose(1, 2).dsplit(2), 2).transpose(1, 2)),
    image("aten.split", lambda net, x: _backwards(aten.split.Tensor(x, 3, 1))),
    image("aten.split_with_sizes", lambda net, x: _backwards(aten.split_with_sizes.default(x, [3, 5], 1))),
    image("aten.chunk", lambda net, x: _backwards(aten.chunk.default(x, 2, 1))),
    image("aten.slice", lambda net, x: aten.slice.Tensor(x, 1, 2, 7), into=5),
    image("aten.slice with a step", lambda net, x: aten.slice.Tensor(x, 1, 0, 8, 2), into=4),
    image("aten.slice from the end", lambda net, x: aten.slice.Tensor(x, -3, -5), into=5),
    image("aten.narrow", lambda net, x: aten.narrow.default(x, 1, 2, 4), into=4),
    image("aten.select", lambda net, x: x * aten.select.int(x, 1, 3).unsqueeze(1)),
    image("aten.roll", lambda net, x: aten.roll.default(x, [3], [1])),
    image("aten.index", lambda net, x: aten.index.Tensor(x, [None, net.i]), i=BACKWARDS),
    image("aten.index of half", lambda net, x: aten.index.Tensor(x, [None, net.i]), into=4, i=buffer([7, 6, 5, 4])),
    image("aten.index_select", lambda net, x: aten.index_select.default(x, 1, net.i), i=BACKWARDS),
    image("aten.pad", lambda net, x: aten.pad.default(x, [0, 0, 0, 0, 2, 2]), into=12),
    image("constant_pad_nd", lambda net, x: torch.constant_pad_nd(x, (0, 0, 0, 0, 2, 2)), into=12),
]

COMPUTED = [
    image("aten.group_norm", lambda net, x: aten.group_norm.default(x, 2)),
    image("aten.layer_norm", lambda net, x: aten.layer_norm.default(x.permute(0, 2, 3, 1), [8]).permute(0, 3, 1, 2)),
    image("aten.native_layer_norm", lambda net, x: aten.native_layer_norm.default(
        x.permute(0, 2, 3, 1), [8], None, None, 1e-5)[0].permute(0, 3, 1, 2)),
    image("aten.convolution", lambda net, x: aten.convolution.default(
        x, net.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2), w=parameter(8, 4, 1, 1)),
    image("aten.conv2d", lambda net, x: aten.conv2d.default(x, net.w, None, [1, 1], [0, 0], [1, 1], 8),
          w=parameter(8, 1, 1, 1)),
    image("conv2d of a computed weight", lambda net, x: F.conv2d(x, net.w * 1.5 + 1, groups=8),
          w=parameter(8, 1, 1, 1)),
    image("conv_transpose2d of a computed weight", lambda net, x: F.conv_transpose2d(x, net.w * 1.5 + 1, groups=8),
          w=parameter(8, 1, 1, 1)),
    image("conv_transpose2d in groups, by position", lambda net, x: F.conv_transpose2d(
        x, net.w * 1.5 + 1, None, 1, 0, 0, 4, 1), w=parameter(8, 2, 1, 1)),
    tokens("aten.scaled_dot_product_attention", lambda net, x: aten.scaled_dot_product_attention.default(
        *[x.view(2, 4, 3, 4).transpose(1, 2)] * 3).transpose(1, 2).flatten(2)),
]

MADE = [
    image("randint of channels", lambda net, x: x + torch.randint(0, 3, (2, 8, 1, 1))),
    image("randint of channels by name", lambda net, x: x + torch.randint(3, size=(2, 8, 1, 1))),
    image("normal of channels", lambda net, x: x + torch.normal(0.0, 1.0, (2, 8, 1, 1))),
    image("aten.full", lambda net, x: x + aten.full.default([2, 8, 1, 1], 1.5)),
    image("aten.zeros", lambda net, x: x + aten.zeros.default([2, 8, 1, 1])),
    image("aten.new_zeros", lambda net, x: x + aten.new_zeros.default(x, [2, 8, 1, 1])),
]

SAMPLES: list[Sample] = [*RESHAPED, *CUT, *COMPUTED, *MADE]
