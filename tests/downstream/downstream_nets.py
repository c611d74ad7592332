"""Two compressed nets that everything downstream is tried on, and their inputs."""

import torch
from torch import nn
from torch.nn import functional as F

import fxprune


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.depthwise, self.pointwise = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)
        self.norm, self.head = nn.GroupNorm(4, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.pointwise(self.depthwise(x))
        a, b = self.norm(x).chunk(2, 1)
        return self.head(torch.cat([a, torch.sigmoid(b)], 1).mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 16)
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.into(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = x + self.mlp(x)
        return self.head(x.reshape(x.shape[0], -1, 16).mean(1))


FORMS = ("graph", "module")
NETS = {"convolutional": (Convolutional, (3, 8, 8)), "transformer": (Transformer, (7, 6))}


def compressed(name: str, form: str = "graph") -> tuple[nn.Module, torch.Tensor]:
    """In inference mode, with statistics that are not the initial ones, and inputs of a batch of four."""
    torch.manual_seed(0)
    build, shape = NETS[name]
    model = build()
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, *shape))
    return fxprune.compress(model.eval(), torch.randn(2, *shape), channels=0.5, form=form), torch.randn(4, *shape)
