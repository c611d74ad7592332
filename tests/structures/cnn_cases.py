"""Structures of convolutional nets: sums, concatenations, gates, groups."""

import torch
from cases import Net, case, conv, image, param
from reference import KeptOnly
from torch import nn
from torch.nn import functional as F


@case("stem a.0 b.0 down.0 c.0")
def residual_adds_over_several_stages():
    def block(a, b):
        return nn.Sequential(conv(a, b), nn.BatchNorm2d(b), nn.ReLU(inplace=True), conv(b, b), nn.BatchNorm2d(b))

    def run(m, x):
        x = torch.relu(m.stem(x))
        x = torch.relu(x + m.a(x))
        x = torch.relu(m.b(x).add(x))
        x = torch.relu(m.down(x) + m.c(x))
        return m.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    return Net(run, stem=conv(3, 8), a=block(8, 8), b=block(8, 8), c=block(8, 12),
               down=nn.Sequential(conv(8, 12, 1), nn.BatchNorm2d(12)), head=nn.Linear(12, 5))


@case("stem l1.2 l2.2 l3.2")
def densenet_concatenation():
    def layer(a):
        return nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), conv(a, 4))

    def run(m, x):
        features = [m.stem(x)]
        for part in (m.l1, m.l2, m.l3):
            features.append(part(torch.cat(features, 1)))
        return m.head(torch.cat(features, 1))

    return Net(run, stem=conv(3, 6), l1=layer(6), l2=layer(10), l3=layer(14), head=conv(18, 2, 1))


@case("a b.0 b.1 c")
def inception_concatenation():
    def run(m, x):
        return m.head(torch.cat([m.a(x), m.b(x), m.c(F.avg_pool2d(x, 3, 1, 1))], dim=1).relu())

    return Net(run, a=conv(3, 4, 1), b=nn.Sequential(conv(3, 5, 1), conv(5, 6)), c=conv(3, 3, 1), head=conv(13, 2))


@case("a")
def concatenation_with_itself():
    def run(m, x):
        y = m.a(x)
        return m.head(torch.cat([y, y.relu(), y], 1))

    return Net(run, a=conv(3, 7), head=conv(21, 2))


@case("a b")
def sum_of_concatenations():
    def run(m, x):
        left = torch.cat([m.a(x), m.b(x)], 1)
        return m.head(left + m.c(x))

    return Net(run, a=conv(3, 4), b=conv(3, 6), c=conv(3, 10), head=conv(10, 2))


@case("conv fc1")
def squeeze_and_excitation():
    def run(m, x):
        y = m.conv(x)
        s = F.adaptive_avg_pool2d(y, 1).view(y.size(0), -1)
        s = torch.sigmoid(m.fc2(torch.relu(m.fc1(s)))).view(y.size(0), 8, 1, 1)
        return m.head(y * s.expand_as(y))

    return Net(run, conv=conv(3, 8), fc1=nn.Linear(8, 4), fc2=nn.Linear(4, 8), head=conv(8, 2))


@case("u")
def product_gate():
    return Net(lambda m, x: m.head(F.silu(m.u(x)) * m.v(x)), u=conv(3, 8), v=conv(3, 8), head=conv(8, 2))


@case("u g.0")
def gate_of_one_channel():
    return Net(lambda m, x: m.head(m.u(x) * torch.sigmoid(m.g(x))), u=conv(3, 8), head=conv(8, 2),
               g=nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 1)))


@case("stem point")
def depthwise_convolution():
    return Net(lambda m, x: m.head(m.point(m.norm(m.deep(m.stem(x).relu())).relu())), stem=conv(3, 8),
               deep=conv(8, 8, groups=8, bias=False), norm=nn.BatchNorm2d(8), point=conv(8, 6, 1), head=conv(6, 2))


@case("stem")
def depthwise_with_multiplier():
    return Net(lambda m, x: m.head(m.deep(m.stem(x).relu())), stem=conv(3, 6), deep=conv(6, 12, groups=6),
               head=conv(12, 2))


@case("stem mid")
def grouped_convolution():
    return Net(lambda m, x: m.head(m.mid(m.stem(x).relu()).relu()), stem=conv(3, 12), mid=conv(12, 16, groups=4),
               head=conv(16, 2))


@case("a mid")
def grouped_convolution_over_a_concatenation():
    """Unequal patterns: groups lie across two producers."""
    return Net(lambda m, x: m.head(m.mid(torch.cat([m.a(x), m.b(x)], 1))), a=conv(3, 4), b=conv(3, 8),
               mid=conv(12, 6, groups=3), head=conv(6, 2))


@case("up1 up2")
def transposed_convolution():
    return Net(lambda m, x: m.head(m.up2(m.up1(x).relu())), up1=nn.ConvTranspose2d(3, 8, 2, 2),
               up2=nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, bias=False), head=conv(6, 2))


@case("a up")
def grouped_transposed_convolution():
    return Net(lambda m, x: m.head(m.up(m.a(x))), a=conv(3, 12), up=nn.ConvTranspose2d(12, 8, 2, 2, groups=4),
               head=conv(8, 2))


def _shuffle(x, groups):
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


@case("a b")
def channel_shuffle():
    return Net(lambda m, x: m.head(m.b(_shuffle(m.a(x), 2)).relu()), a=conv(3, 12), b=conv(12, 6), head=conv(6, 2))


@case("stem stem#2 b.0")
def shufflenet_unit():
    def run(m, x):
        x = m.stem(x)
        x1, x2 = x.chunk(2, dim=1)
        return m.head(_shuffle(torch.cat((x1, m.b(x2)), 1), 2))

    branch = nn.Sequential(conv(6, 8, 1), nn.ReLU(), conv(8, 8, groups=8), conv(8, 6, 1))
    return Net(run, stem=conv(3, 12), b=branch, head=conv(12, 2))


@case("a")
def channel_shuffle_module():
    return Net(lambda m, x: m.head(m.s(m.a(x))), a=conv(3, 12), s=nn.ChannelShuffle(3), head=conv(12, 2))


@case("a b")
def pixel_shuffle():
    return Net(lambda m, x: m.head(m.shuffle(m.b(m.a(x)))), a=conv(3, 6), b=conv(6, 20),
               shuffle=nn.PixelShuffle(2), head=conv(5, 2))


@case("a")
def pixel_unshuffle_function():
    return Net(lambda m, x: m.head(F.pixel_unshuffle(m.a(x), 2)), a=conv(3, 5), head=conv(20, 2))


@case("a b")
def zero_padding_of_channels():
    """ResNet's option-A shortcut."""

    def run(m, x):
        x = m.a(x).relu()
        return m.head(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0) + m.b(x))

    return Net(run, a=conv(3, 6), b=conv(6, 10, stride=2), head=conv(10, 2))


@case("a b")
def zero_padding_by_concatenation():
    def run(m, x):
        x = m.a(x).relu()
        zeros = torch.zeros(x.shape[0], 4, x.shape[2], x.shape[3])
        return m.head(torch.cat([x, zeros], 1) + m.b(x))

    return Net(run, a=conv(3, 6), b=conv(6, 10), head=conv(10, 2))


@case("a b")
def batch_norm_and_prelu():
    parts = [conv(3, 8), nn.BatchNorm2d(8), nn.PReLU(8), conv(8, 6), nn.BatchNorm2d(6, affine=False), nn.PReLU()]
    return Net(lambda m, x: m.head(m.rest(m.b(m.act(m.norm(m.a(x)))))), a=parts[0], norm=parts[1], act=parts[2],
               b=parts[3], rest=nn.Sequential(*parts[4:]), head=conv(6, 2))


@case("a b")
def group_norm():
    return Net(lambda m, x: m.head(m.n2(m.b(m.n1(m.a(x)).relu()))), a=conv(3, 12), n1=nn.GroupNorm(3, 12),
               b=conv(12, 8), n2=nn.GroupNorm(8, 8), head=conv(8, 2))


@case("a b")
def instance_norm():
    return Net(lambda m, x: m.head(m.n2(m.b(m.n1(m.a(x))))), a=conv(3, 8), n1=nn.InstanceNorm2d(8, affine=True),
               b=conv(8, 6), n2=nn.InstanceNorm2d(6, affine=True, track_running_stats=True), head=conv(6, 2))


@case("a b")
def layer_scale_and_channel_first_layer_norm():
    """ConvNeXt: a permuted layer norm, and a plain parameter that scales channels."""

    def run(m, x):
        x = m.a(x)
        y = m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return m.head(x + m.gamma * m.c(m.b(y).relu()))

    return Net(run, a=conv(3, 8), norm=nn.LayerNorm(8), b=conv(8, 12, 1), c=conv(12, 8, 1), gamma=param(8, 1, 1),
               head=conv(8, 2))


def _mean_of_kept(full, kept):
    full.mean = KeptOnly(lambda x: x.mean(1, keepdim=True), 1, kept("a.weight", 0))
    full.max = KeptOnly(lambda x: x.amax(1, keepdim=True), 1, kept("a.weight", 0))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=1, keepdim=True)


class Max(nn.Module):
    def forward(self, x):
        return torch.amax(x, 1, True)


@case("a", patch=_mean_of_kept)
def spatial_attention_from_channel_statistics():
    """CBAM: mean and maximum over channels are those of the kept ones."""

    def run(m, x):
        y = m.a(x)
        return m.head(y * torch.sigmoid(m.gate(torch.cat([m.mean(y), m.max(y)], 1))))

    return Net(run, a=conv(3, 8), mean=Mean(), max=Max(), gate=conv(2, 1), head=conv(8, 2))


class Standardised(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        mean, std = w.mean(dim=(1, 2, 3), keepdim=True), w.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, (w - mean) / (std + 1e-5), self.bias, self.stride, self.padding, self.dilation, self.groups)


def _standardise_kept(full, kept):
    for name in ("a", "b", "head"):
        layer, rows, columns = getattr(full, name), kept(f"{name}.weight", 0), kept(f"{name}.weight", 1)
        full.add_module(name, _Kept(layer, rows, columns))


class _Kept(nn.Module):
    def __init__(self, layer, rows, columns):
        super().__init__()
        self.layer, self.rows, self.columns = layer, torch.tensor(rows), torch.tensor(columns)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        w = self.weight[self.rows][:, self.columns]
        w = (w - w.mean(dim=(1, 2, 3), keepdim=True)) / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        y = F.conv2d(x[:, self.columns], w, self.bias[self.rows], padding=1)
        return y.new_zeros(len(y), len(self.weight), *y.shape[2:]).index_copy(1, self.rows, y)


@case("a b", patch=_standardise_kept)
def weight_standardisation():
    return Net(lambda m, x: m.head(m.b(m.a(x).relu()).relu()), a=Standardised(3, 8, 3, padding=1),
               b=Standardised(8, 6, 3, padding=1), head=Standardised(6, 2, 3, padding=1))


@case("a b", image(rank=1, size=12))
def convolution_1d():
    return Net(lambda m, x: m.head(m.n(m.b(m.a(x).relu()))), a=nn.Conv1d(3, 8, 3, dilation=2, padding=2),
               b=nn.Conv1d(8, 6, 3), n=nn.BatchNorm1d(6), head=nn.Conv1d(6, 2, 1))


@case("a b", image(rank=3, size=4))
def convolution_3d():
    return Net(lambda m, x: m.head(m.n(m.b(m.a(x).relu()))), a=nn.Conv3d(3, 8, 3, padding=1), b=nn.Conv3d(8, 6, 2),
               n=nn.BatchNorm3d(6), head=nn.Conv3d(6, 2, 1))
