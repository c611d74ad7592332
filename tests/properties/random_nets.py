"""Random multi-branch nets over feature maps ``[batch, channels, 4, 4]``.

A net is a list of steps; each step picks earlier feature maps and adds one. A channel that is set to zero stays zero
through every step (or meets a weight that is set to zero), so that masking parameters masks the whole net.
"""

import random
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

SIZE = 4
STEPS: dict[str, Callable] = {}


def step(build: Callable) -> Callable:
    """Register a step: ``build(net, rng, channels)`` gives a function of all feature maps so far and the new width,
    or None where it does not apply."""
    STEPS[build.__name__] = build
    return build


class RandomNet(nn.Module):
    """Args:
        steps: (name, seed) pairs; a step that does not apply is left out.
    """

    def __init__(self, steps: list[tuple[str, int]]):
        super().__init__()
        self.parts = nn.ModuleList()
        self.channels, self.runs, self.used = [3], [], set()
        self.log = []
        self._add("stem", conv(self, random.Random(len(steps)), [3]))
        for name, seed in steps:
            self._add(name, STEPS[name](self, random.Random(seed), self.channels))
        leaves = [i for i in range(1, len(self.channels)) if i not in self.used]
        self.heads = nn.ModuleDict({str(i): nn.Conv2d(self.channels[i], 2, 1) for i in leaves})

    def part(self, module: nn.Module) -> int:
        self.parts.append(module)
        return len(self.parts) - 1

    def _add(self, name, built):
        if built is not None:
            run, width, operands = built
            self.runs.append(run)
            self.used.update(operands)
            self.channels.append(width)
            self.log.append((name, operands, width))

    def forward(self, x):
        maps = [x]
        for run in self.runs:
            maps.append(run(self, maps))
        return [head(maps[int(i)]) for i, head in self.heads.items()]


def pick(rng, channels, fits=lambda c: True):
    """An earlier feature map (not the input), the latest more often."""
    found = [i for i in range(1, len(channels)) if fits(channels[i])]
    return rng.choice([*found, *found[-2:]]) if found else None


def unary(net, rng, channels, run, width=None, fits=lambda c: True):
    i = pick(rng, channels, fits)
    return None if i is None else (lambda m, v: run(m, v[i]), width(channels[i]) if width else channels[i], [i])


def conv(net, rng, channels):
    i = pick(rng, channels) or 0
    out, k = rng.randint(2, 10), rng.choice([1, 3])
    p = net.part(nn.Conv2d(channels[i], out, k, padding=k // 2, bias=rng.random() < 0.7))
    return lambda m, v: m.parts[p](v[i]), out, [i]


STEPS["conv"] = conv


@step
def same_conv_twice(net, rng, channels):
    i = pick(rng, channels)
    p = net.part(nn.Conv2d(channels[i], channels[i], 3, padding=1))
    return lambda m, v: m.parts[p](m.parts[p](v[i]).relu()), channels[i], [i]


@step
def grouped(net, rng, channels):
    i = pick(rng, channels, lambda c: c > 3)
    if i is None:
        return None
    groups = rng.choice([g for g in range(2, channels[i] + 1) if channels[i] % g == 0])
    p = net.part(nn.Conv2d(channels[i], groups * rng.randint(1, 3), 3, padding=1, groups=groups))
    return lambda m, v: m.parts[p](v[i]), net.parts[p].out_channels, [i]


@step
def transposed(net, rng, channels):
    i = pick(rng, channels)
    groups = rng.choice([g for g in range(1, channels[i] + 1) if channels[i] % g == 0])
    p = net.part(nn.ConvTranspose2d(channels[i], groups * rng.randint(1, 3), 3, padding=1, groups=groups))
    return lambda m, v: m.parts[p](v[i]), net.parts[p].out_channels, [i]


@step
def norm(net, rng, channels):
    """No instance norm: torch 2.15 gives wrong gradients for it where the incoming ones are not contiguous."""
    i = pick(rng, channels)
    c = channels[i]
    groups = rng.choice([g for g in range(1, c + 1) if c % g == 0 and (g < c or c == 1)])
    p = net.part(rng.choice([nn.BatchNorm2d(c), nn.GroupNorm(groups, c)]))
    return lambda m, v: m.parts[p](v[i]), c, [i]


@step
def layer_norm(net, rng, channels):
    i = pick(rng, channels)
    p = net.part(rng.choice([nn.LayerNorm, nn.RMSNorm])(channels[i]))
    return lambda m, v: m.parts[p](v[i].permute(0, 2, 3, 1)).permute(0, 3, 1, 2), channels[i], [i]


@step
def activation(net, rng, channels):
    f = rng.choice([torch.relu, torch.tanh, F.silu, F.gelu, lambda x: x * 2, lambda x: x.abs().neg(),
                    lambda x: F.relu(x, inplace=True) if False else x.clone().relu_()])
    return unary(net, rng, channels, lambda m, x: f(x))


def _pair(rng, channels):
    i = pick(rng, channels)
    j = pick(rng, channels, lambda c: c == channels[i])
    return i, j


@step
def add(net, rng, channels):
    i, j = _pair(rng, channels)
    f = rng.choice([torch.add, lambda a, b: a - 3 * b, lambda a, b: (a.clone()).add_(b)])
    return lambda m, v: f(v[i], v[j]), channels[i], [i, j]


@step
def multiply(net, rng, channels):
    i, j = _pair(rng, channels)
    return lambda m, v: v[i] * torch.tanh(v[j]), channels[i], [i, j]


@step
def cat(net, rng, channels):
    many = [pick(rng, channels) for _ in range(rng.randint(2, 3))]
    return lambda m, v: torch.cat([v[i] for i in many], 1), sum(channels[i] for i in many), many


@step
def gate(net, rng, channels):
    """Squeeze and excitation, or a single gate."""
    i = pick(rng, channels)
    p = net.part(nn.Linear(channels[i], 5))
    q = net.part(nn.Linear(5, rng.choice([1, channels[i]])))

    def run(m, v):
        s = torch.sigmoid(m.parts[q](F.silu(m.parts[p](v[i].mean((2, 3))))))
        return v[i] * s[:, :, None, None]

    return run, channels[i], [i]


@step
def slice_(net, rng, channels):
    i = pick(rng, channels, lambda c: c > 1)
    if i is None:
        return None
    c = channels[i]
    a = rng.randrange(c - 1)
    b, s = rng.randint(a + 1, c), rng.choice([1, 1, 2])
    index = rng.choice([slice(a, b, s), slice(a, None, s), slice(-(c - a), b - c or None, s)])
    return lambda m, v: v[i][:, index], len(range(c)[index]), [i]


@step
def chunked_product(net, rng, channels):
    i = pick(rng, channels, lambda c: c % 2 == 0)
    if i is None:
        return None

    def run(m, v):
        a, b = v[i].chunk(2, dim=1)
        return a * b.sigmoid()

    return run, channels[i] // 2, [i]


@step
def swapped_parts(net, rng, channels):
    i = pick(rng, channels, lambda c: c > 2)
    if i is None:
        return None
    size = rng.randint(1, channels[i] - 1)
    return lambda m, v: torch.cat(torch.split(v[i], size, 1)[::-1], 1), channels[i], [i]


def _composite(c):
    return c > 3 and any(c % g == 0 for g in range(2, c))


def _factor(rng, c):
    return rng.choice([g for g in range(2, c) if c % g == 0])


@step
def shuffle(net, rng, channels):
    i = pick(rng, channels, _composite)
    if i is None:
        return None
    g = _factor(rng, channels[i])
    return lambda m, v: v[i].view(len(v[i]), g, -1, SIZE, SIZE).transpose(1, 2).flatten(1, 2), channels[i], [i]


@step
def folded_sum(net, rng, channels):
    i = pick(rng, channels, _composite)
    if i is None:
        return None
    g, dim = _factor(rng, channels[i]), rng.choice([1, 2])
    width = channels[i] // g if dim == 1 else g
    return lambda m, v: v[i].unflatten(1, (g, -1)).sum(dim), width, [i]


@step
def pixel_shuffle(net, rng, channels):
    return unary(net, rng, channels, lambda m, x: F.avg_pool2d(F.pixel_shuffle(x, 2), 2), lambda c: c // 4,
                 lambda c: c % 4 == 0)


@step
def roll_or_flip(net, rng, channels):
    shift = rng.randint(-5, 5)
    f = rng.choice([lambda x: torch.roll(x, shift, 1), lambda x: x.flip(1), lambda x: x.roll((shift, 1), (1, 3))])
    return unary(net, rng, channels, lambda m, x: f(x))


@step
def permuted(net, rng, channels):
    i = pick(rng, channels)
    order = torch.randperm(channels[i], generator=torch.Generator().manual_seed(rng.randrange(99)))
    name = f"order{len(net.runs)}"
    net.register_buffer(name, order)
    return lambda m, v: v[i][:, getattr(m, name)], channels[i], [i]


@step
def padded(net, rng, channels):
    a, b = rng.randint(0, 3), rng.randint(-1, 3)
    return unary(net, rng, channels, lambda m, x: F.pad(x, (0, 0, 0, 0, a, b)), lambda c: c + a + b,
                 lambda c: c + a + b > 1)


@step
def repeated(net, rng, channels):
    f = rng.choice([lambda x: x.repeat(1, 2, 1, 1), lambda x: x.repeat_interleave(2, 1),
                    lambda x: x[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)])
    return unary(net, rng, channels, lambda m, x: f(x), lambda c: 2 * c, lambda c: c < 16)


@step
def written(net, rng, channels):
    """A slice of a copy is overwritten by another map."""
    i, j = pick(rng, channels), pick(rng, channels)
    if channels[i] < channels[j]:
        i, j = j, i
    at = rng.randint(0, channels[i] - channels[j])

    def run(m, v):
        y = v[i].clone()
        y[:, at:at + channels_j] = v[j] if way else y[:, at:at + channels_j] - v[j]
        return y

    channels_j, way = channels[j], rng.random() < 0.5
    return run, channels[i], [i, j]


@step
def filled(net, rng, channels):
    i = pick(rng, channels)
    c, more = channels[i], rng.randint(0, 2)

    def run(m, v):
        y = torch.zeros(v[i].shape[0], c + more, SIZE, SIZE, dtype=v[i].dtype)
        y[:, more:] = v[i]
        return y

    return run, c + more, [i]


@step
def token_mlp(net, rng, channels):
    i = pick(rng, channels)
    p = net.part(nn.Sequential(nn.Linear(channels[i], 7), nn.GELU(), nn.Linear(7, 6)))
    last = rng.random() < 0.5

    def run(m, v):
        y = m.parts[p](v[i].flatten(2).transpose(1, 2))
        return (y.transpose(1, 2).reshape(-1, 6, SIZE, SIZE) if last else
                y.view(y.size(0), SIZE, SIZE, -1).permute(0, 3, 1, 2))

    return run, 6, [i]


@step
def flattened(net, rng, channels):
    """Flatten (channels first or last), a linear layer, and back to an image."""
    i = pick(rng, channels)
    p = net.part(nn.Linear(channels[i] * 4, 4 * 5))
    last = rng.random() < 0.5

    def run(m, v):
        y = F.max_pool2d(v[i], 2)
        y = m.parts[p]((y.permute(0, 2, 3, 1) if last else y).flatten(1))
        return F.interpolate(y.view(y.shape[0], 5, 2, 2), scale_factor=2)

    return run, 5, [i]


@step
def attention(net, rng, channels):
    i = pick(rng, channels)
    heads, size = rng.choice([1, 2, 4]), rng.choice([2, 3])
    inner = heads * size
    fused = rng.random() < 0.5
    p = net.part(nn.Linear(channels[i], 3 * inner))
    q = net.part(nn.Linear(inner, channels[i]))

    def run(m, v):
        x = v[i].flatten(2).transpose(1, 2)
        b, n, _ = x.shape
        a, k, w = m.parts[p](x).reshape(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4) if fused else \
            (t.view(b, n, heads, size).transpose(1, 2) for t in m.parts[p](x).chunk(3, -1))
        if fused:
            y = F.scaled_dot_product_attention(a, k, w)
        else:
            y = (a @ k.transpose(-1, -2) * a.shape[-1] ** -0.5).softmax(-1) @ w
        y = m.parts[q](y.transpose(1, 2).reshape(b, n, inner))
        return v[i] + y.transpose(1, 2).view_as(v[i])

    return run, channels[i], [i]


@step
def multihead(net, rng, channels):
    i = pick(rng, channels, lambda c: c % 2 == 0)
    if i is None:
        return None
    p = net.part(nn.MultiheadAttention(channels[i], 2, batch_first=True))

    def run(m, v):
        x = v[i].flatten(2).transpose(1, 2)
        return m.parts[p](x, x, x, need_weights=False)[0].transpose(1, 2).unflatten(2, (SIZE, SIZE))

    return run, channels[i], [i]


@step
def mixed_maps(net, rng, channels):
    """Channels of one map weigh channels of another."""
    i, j = pick(rng, channels), pick(rng, channels)

    def run(m, v):
        a, b = v[i].flatten(2), v[j].flatten(2)
        return (torch.einsum("bip,bjp->bij", a, b) @ b / 16).view(-1, c, SIZE, SIZE)

    c = channels[i]
    return run, c, [i, j]


@step
def recurrent(net, rng, channels):
    i = pick(rng, channels)
    p = net.part(rng.choice([nn.LSTM, nn.GRU])(channels[i], 4, batch_first=True, bidirectional=rng.random() < 0.5))
    width = 4 * (2 if net.parts[p].bidirectional else 1)
    return (lambda m, v: m.parts[p](v[i].flatten(2).mT)[0].mT.unflatten(-1, (SIZE, SIZE))), width, [i]


@step
def folded_into_batch(net, rng, channels):
    """Channels join the batch and come back; the product of both is a size that only half belongs to the weights."""
    i = pick(rng, channels)
    c, literal = channels[i], rng.random() < 0.5

    def run(m, v):
        b = v[i].shape[0]
        y = F.avg_pool2d(v[i].reshape(b * c, 1, SIZE, SIZE), 3, 1, 1)
        return y.view(b, c, SIZE, SIZE) if literal else y.view(b, -1, *y.shape[2:])

    return run, c, [i]


@step
def stacked(net, rng, channels):
    i, j = _pair(rng, channels)
    dim = rng.choice([0, 1, 2, -1])
    return lambda m, v: torch.stack([v[i], v[j], v[i]], dim).sum(dim), channels[i], [i, j]


@step
def plain_parameters(net, rng, channels):
    i = pick(rng, channels)
    c, out, name = channels[i], rng.randint(2, 8), f"plain{len(net.runs)}"
    for suffix, shape in (("scale", (c, 1, 1)), ("matrix", (out, c)), ("shift", (out,))):
        net.register_parameter(f"{name}_{suffix}", nn.Parameter(torch.randn(shape)))
    way = rng.randrange(3)

    def run(m, v):
        scale, matrix, shift = (getattr(m, f"{name}_{s}") for s in ("scale", "matrix", "shift"))
        x = v[i] * scale
        if way == 0:
            y = torch.einsum("bchw,oc->bohw", x, matrix)
        elif way == 1:
            y = (x.permute(0, 2, 3, 1) @ matrix.t()).permute(0, 3, 1, 2)
        else:
            y = (matrix @ x.flatten(2)).unflatten(2, (SIZE, SIZE))
        return y + shift.view(1, -1, 1, 1)

    return run, out, [i]


@step
def shared_conv(net, rng, channels):
    i, j = _pair(rng, channels)
    p = net.part(nn.Conv2d(channels[i], rng.randint(2, 8), 1))
    return lambda m, v: m.parts[p](v[i]) - m.parts[p](v[j]).relu(), net.parts[p].out_channels, [i, j]


@step
def two_chunks_apart(net, rng, channels):
    """Unequal chunks take different ways and meet again."""
    i = pick(rng, channels, lambda c: c > 2)
    if i is None:
        return None
    p = net.part(nn.Conv2d(channels[i], channels[i], 1))

    def run(m, v):
        a, *rest = m.parts[p](v[i]).chunk(2, 1)
        return torch.cat([a.relu(), *rest][::-1], 1) + v[i]

    return run, channels[i], [i]
