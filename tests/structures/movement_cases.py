"""Structures that move data: splits, slices, rolls, reshapes, gathers, and arithmetic on sizes."""

import math

import torch
from cases import Net, case, conv, image, param, tokens
from reference import KeptOnly
from torch import nn
from torch.nn import functional as F


@case("a a#2 a#3")
def chunk_into_unequal_parts():
    """11 channels in 3 chunks: 4, 4 and 3."""

    def run(m, x):
        u, v, w = m.a(x).chunk(3, 1)
        return m.h1(u.relu()) + m.h2(v.sigmoid()) + m.h3(w)

    return Net(run, a=conv(3, 11), h1=conv(4, 2), h2=conv(4, 2), h3=conv(3, 2))


@case("a a#2 a#3")
def split_by_an_integer_with_a_remainder():
    def run(m, x):
        parts = torch.split(m.a(x), 4, dim=1)
        return m.h1(parts[0]) + m.h2(parts[1].sigmoid()) + m.h3(parts[-1])

    return Net(run, a=conv(3, 10), h1=conv(4, 2), h2=conv(4, 2), h3=conv(2, 2))


@case("a a#2")
def split_by_a_list():
    def run(m, x):
        u, v = torch.split(m.a(x), [3, 6], 1)
        return m.h1(u) + m.h2(v.relu())

    return Net(run, a=conv(3, 9), h1=conv(3, 2), h2=conv(6, 2))


@case("a")
def tensor_split_and_product_of_halves():
    def run(m, x):
        u, v = m.a(x).tensor_split(2, 1)
        return m.head(u * v)

    return Net(run, a=conv(3, 12), head=conv(6, 2))


@case("a a#2 a#3 a#4")
def literal_slices():
    """Overlapping slices: which of them an index is read by, and how it moves, decides its group."""

    def run(m, x):
        y = m.a(x)
        return m.h1(y[:, :8].relu()) + m.h2(y[:, 4:]) + m.h3(y[:, -2:])

    return Net(run, a=conv(3, 12), h1=conv(8, 2), h2=conv(8, 2), h3=conv(2, 2))


@case("a a#2")
def slices_with_steps():
    def run(m, x):
        y = m.a(x)
        return m.h1(y[:, ::2]) + m.h2(y[:, 1::2].relu())

    return Net(run, a=conv(3, 11), h1=conv(6, 2), h2=conv(5, 2))


@case("a a#2")
def narrow_and_select():
    """A selected index must stay."""

    def run(m, x):
        y = m.a(x)
        return m.h1(y.narrow(1, 2, 5)) * y[:, 7:8] * y[:, 8].unsqueeze(1) * y.select(1, -1)[:, None]

    return Net(run, a=conv(3, 10), h1=conv(5, 2))


@case("a")
def roll_over_channels():
    return Net(lambda m, x: m.head(m.a(x) + torch.roll(m.a(x), 4, 1)), a=conv(3, 8), head=conv(8, 2))


@case("a")
def roll_and_flip_over_channels():
    def run(m, x):
        y = torch.roll(m.a(x), shifts=(3, 1), dims=(1, 2))
        return m.head(y * m.b(y.flip(1)).flip([1, 3]).roll(-2, 1))

    return Net(run, a=conv(3, 9), b=conv(9, 9), head=conv(9, 2))


@case("a b")
def nhwc_permute_and_flatten():
    def run(m, x):
        y = m.b(m.a(x).relu())
        return m.head(y.permute(0, 2, 3, 1).flatten(1))

    return Net(run, a=conv(3, 8), b=conv(8, 6), head=nn.Linear(216, 4))


@case("a b fc")
def flatten_after_pooling():
    def run(m, x):
        y = F.max_pool2d(m.b(m.a(x).relu()), 2)
        return m.head(m.fc(torch.flatten(y, 1)).relu())

    return Net(run, a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(54, 10), head=nn.Linear(10, 4))


@case("a fc", image(size=4))
def flatten_module_and_unflatten_module():
    def run(m, x):
        y = m.flat(m.a(x))
        return m.head(m.un(m.fc(y)))

    return Net(run, a=conv(3, 6), flat=nn.Flatten(), fc=nn.Linear(96, 80), un=nn.Unflatten(1, (5, 4, 4)),
               head=conv(5, 2))


@case("a b")
def size_arithmetic():
    """Half of however many channels there are, and a scale that is a number."""

    def run(m, x):
        y = m.a(x)
        half = y.shape[1] // 2
        u, v = y[:, :half], y[:, half:]
        z = m.b(u * v) * y.shape[1] ** -0.5 / math.sqrt(y.size(1))
        return m.head(z.view(z.size(0), z.size(1), -1).mean(-1) / (z.shape[1] + 1))

    return Net(run, a=conv(3, 12), b=conv(6, 7), head=nn.Linear(7, 3))


@case("a b")
def reshapes_with_literal_sizes():
    def run(m, x):
        y = m.a(x)
        b, c, h, w = y.shape
        y = y.reshape(b, c, h * w).transpose(1, 2)
        y = m.b(y).transpose(-1, -2).reshape(-1, 10, 6, 6)
        return m.head(y.contiguous().view((b, 10, 36)).unflatten(2, (6, -1)))

    return Net(run, a=conv(3, 8), b=nn.Linear(8, 10), head=conv(10, 2))


@case("a")
def space_to_depth_by_hand():
    """Swin's patch merging: four slices of positions, concatenated over channels, channels last."""

    def run(m, x):
        y = m.a(x).permute(0, 2, 3, 1)
        y = torch.cat([y[:, i::2, j::2, :] for i in (0, 1) for j in (0, 1)], -1)
        return m.head(m.norm(y))

    return Net(run, a=conv(3, 6), norm=nn.LayerNorm(24), head=nn.Linear(24, 3))


@case("a b")
def einsum_contractions():
    def run(m, x):
        y = torch.einsum("bchw,oc->bohw", m.a(x), m.b)
        return torch.einsum("b c h w, k c -> b k h w", y.relu(), m.head)

    return Net(run, a=conv(3, 8), b=param(6, 8), head=param(2, 6))


@case("a b")
def outer_product_of_two_branches():
    """Bilinear pooling keeps one of two free factors."""

    def run(m, x):
        u, v = m.a(x).flatten(2), m.b(x).flatten(2)
        return m.head(torch.einsum("bip,bjp->bij", u, v).sum(-1))

    return Net(run, a=conv(3, 6), b=conv(3, 5), head=nn.Linear(6, 2))


def _unfold(m, x):
    y = m.a(x)
    return m.head(F.fold(F.unfold(y, 2, stride=2), (6, 6), 2, stride=2) + y)


@case("a")
def unfold_and_fold():
    return Net(_unfold, a=conv(3, 6), head=conv(6, 2))


@case("a", renumbered=("order",))
def index_buffer_over_channels():
    return Net(lambda m, x: m.head(m.a(x)[:, m.order]), a=conv(3, 8), order=torch.tensor([3, 1, 0, 2, 7, 5, 6, 4]),
               head=conv(8, 2))


@case("a a#2", renumbered=("order",))
def index_select_with_repeats():
    return Net(lambda m, x: m.head(torch.index_select(m.a(x), 1, m.order)), a=conv(3, 6),
               order=torch.tensor([3, 1, 0, 2, 3, 5, 1, 4]), head=conv(8, 2))


@case("a a#2")
def advanced_index_by_a_list():
    return Net(lambda m, x: m.head(m.a(x)[:, [0, 3, 5, 2]]), a=conv(3, 6), head=conv(4, 2))


@case("a", image())
def relative_position_table():
    """Rows of a table are names, its columns are tied with what they are added to."""

    def run(m, x):
        y = m.a(x).flatten(2).transpose(1, 2)
        bias = m.table[m.index.view(-1)].view(36, -1)
        return m.head((y + bias).relu())

    return Net(run, a=conv(3, 6), table=param(5, 6), index=torch.randint(0, 5, (6, 6)), head=nn.Linear(6, 3))


@case("a c")
def stack_and_sum_of_branches():
    """Selective kernels."""

    def run(m, x):
        y = torch.stack([m.a(x), m.b(x)], dim=1)
        z = m.c(y.sum(1).mean((2, 3)))
        weights = torch.softmax(m.d(z).view(x.shape[0], 2, 8, 1, 1), 1)
        return m.head((y * weights).sum(dim=1))

    return Net(run, a=conv(3, 8), b=conv(3, 8, 1), c=nn.Linear(8, 5), d=nn.Linear(5, 16), head=conv(8, 2))


@case("a")
def repeat_and_repeat_interleave():
    def run(m, x):
        y = m.a(x)
        return m.head(y.repeat(1, 2, 1, 1) + m.b(x).repeat_interleave(3, 1))

    return Net(run, a=conv(3, 6), b=conv(3, 4), head=conv(12, 2))


@case("fc1 fc2", tokens())
def glu_of_tokens():
    return Net(lambda m, x: m.head(m.fc2(F.glu(m.fc1(x), dim=-1))), fc1=nn.Linear(10, 16), fc2=nn.Linear(8, 7),
               head=nn.Linear(7, 3))


@case("conv", image(size=4))
def class_token_and_position_embedding():
    def run(m, x):
        y = m.conv(x).flatten(2).transpose(1, 2)
        y = torch.cat([m.token.expand(y.shape[0], -1, -1), y], dim=1)
        return m.head(m.norm(y + m.position[:, :y.shape[1]])[:, 0])

    return Net(run, conv=nn.Conv2d(3, 8, 2, 2), token=param(1, 1, 8), position=param(1, 9, 8), norm=nn.LayerNorm(8),
               head=nn.Linear(8, 3))


@case("up", image())
def low_rank_update_of_a_kernel():
    """LoRA of a convolution: [out·k, in·k] read as [out, in, k, k]. Rows hang together in threes; inputs stay."""

    def run(m, x):
        update = (m.up @ m.down).view(m.conv.weight.shape)
        y = F.conv2d(m.a(x), m.conv.weight + update, m.conv.bias, padding=1)
        return m.head(y.relu())

    return Net(run, a=conv(3, 8), conv=conv(8, 10), up=param(30, 4), down=param(4, 24), head=conv(10, 2))


def _maximum_of_kept(m, kept):
    m.over = KeptOnly(lambda y: y.max(1, keepdim=True).values, 1, kept("a.weight", 0))


@case("a", image(), patch=_maximum_of_kept)
def maximum_over_channels():
    """The positions of the maximum are of no use to anybody."""
    return Net(lambda m, x: m.head(m.over(m.a(x))), a=conv(3, 9), head=conv(1, 2),
               over=Net(lambda m, y: y.max(1, keepdim=True).values))


@case("a", tokens(12))
def identity_added_to_a_weight():
    """Rows and columns of the weight go together, as those of an identity do."""
    return Net(lambda m, x: m.head(F.linear(m.a(x), m.w + torch.eye(12).to(m.w.dtype))), a=nn.Linear(12, 12),
               w=param(12, 12), head=nn.Linear(12, 2))


@case("a", tokens())
def masked_tokens_are_replaced():
    """SpecAugment, and a mask over batch and time: what lies behind the masked dims is tied with the replacement."""

    def run(m, x):
        y = m.a(x).clone()
        y[x.sum(-1) > 0] = m.instead
        return m.head(y)

    return Net(run, a=nn.Linear(10, 9), instead=param(9), head=nn.Linear(9, 2))


@case("a", tokens())
def windows_side_by_side():
    """A window whose stride is its length is a split of the dimension."""
    return Net(lambda m, x: m.head(m.a(x).unfold(-1, 4, 4).sum(-1)), a=nn.Linear(10, 12), head=nn.Linear(3, 2))


@case("table", lambda batch: (torch.arange(batch * 4).reshape(batch, 4) % 5, torch.randn(batch * 2, 6)))
def features_in_place_of_tokens():
    """Of each four or five tokens some make place for features, in order; channels run along."""

    def run(m, tokens, features):
        mask = (tokens < 2).unsqueeze(-1)
        y = m.table(tokens)
        return m.head(y.masked_scatter(mask.expand_as(y), m.a(features)))

    return Net(run, table=nn.Embedding(5, 8), a=nn.Linear(6, 8), head=nn.Linear(8, 3))
