"""Networks with residual branches, of every kind that the field has."""

import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.planning.digest import digest_of


class Residual(nn.Module):
    """A stem, blocks, and a head; what a block does is the subclass'."""

    def __init__(self, blocks=3, width=6):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(self.block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(x).mean((2, 3)))


class Pair(nn.Module):
    """conv, norm, relu, conv, norm."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def branch(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        return F.relu(x + self.branch(x))


class InPlace(Pair):
    """Adds into the branch, and rectifies the sum in place."""

    def forward(self, x):
        out = self.branch(x)
        out += x
        return F.relu(out, inplace=True)


class PreActivation(Pair):
    """Normalises first; nothing is done to the sum."""

    def branch(self, x):
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))

    def forward(self, x):
        return self.branch(x) + x


class Nested(nn.Module):
    """A branch around a branch."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.out = Pair(width), nn.Conv2d(width, width, 1)

    def branch(self, x):
        return self.out(self.inner.branch(x) + x)

    def forward(self, x):
        return x + self.branch(x)


class Scaled(nn.Module):
    """As ConvNeXt's: depthwise, over channels last, a scale per channel, dropped at random while training."""

    def __init__(self, width):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def branch(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return y.permute(0, 3, 1, 2)

    def forward(self, x):
        y = self.branch(x)
        if self.training:
            y = y * torch.empty(len(y), 1, 1, 1).bernoulli_(0.8) / 0.8
        return x + y


class Encoder(nn.Module):
    """Attention and an MLP, each a branch of its own."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).reshape(b, c, h, w)


def net(kind, blocks=3, width=6, seed=0):
    """A network of such blocks, in eval mode, its statistics made up."""
    torch.manual_seed(seed)
    model = type(f"Of{kind.__name__}", (Residual,), {"block": kind})(blocks, width).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


def without(model, x, names):
    """A plan that takes branches out, and leaves all channels."""
    coupling = fxprune.analyze(model, x)
    return fxprune.Plan.build(coupling.groups, {}, signature=coupling.signature, inputs=coupling.inputs,
                              digest=digest_of(model), aliases={},
                              branches={name: coupling.branches[name].tensors for name in names})
