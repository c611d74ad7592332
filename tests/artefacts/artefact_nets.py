"""A few small nets whose artefacts are written whole: what differs between them is what a file must hold."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Shared blocks, an in-place addition, a frozen layer, a constant."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.right.requires_grad_(False)
        self.register_buffer("scale", torch.rand(8, 1, 1))

    def forward(self, x):
        x = self.stem(x)
        y = self.left(x)
        y += self.right(x) * self.scale
        y = torch.cat([y, x], 1)[:, ::2]
        return self.head(F.relu(y).mean((2, 3)))


class Auxiliary(nn.Module):
    """Another graph in training, and dropout."""

    def __init__(self):
        super().__init__()
        self.body, self.drop = nn.Conv2d(3, 8, 3), nn.Dropout(0.5)
        self.head, self.aux = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        x = self.drop(F.relu(self.body(x)).mean((2, 3)))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


class Attention(nn.Module):
    """Attention, tied weights, tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(self.layer(self.embed(ids)))


class Recurrent(nn.Module):
    """An LSTM, keyword arguments, a dictionary as output."""

    def __init__(self):
        super().__init__()
        self.into, self.rnn, self.out = nn.Linear(6, 8), nn.LSTM(8, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x, gain=None):
        y, _ = self.rnn(torch.tanh(self.into(x)))
        y = self.out(y)
        return {"logits": y if gain is None else y * gain, "last": y[:, -1]}


def sequential() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(),
                         nn.Linear(96, 4))


def images(batch: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 3, 8, 8),)


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], object]]] = {
    "residual": (Residual, images),
    "auxiliary": (Auxiliary, images),
    "attention": (Attention, lambda batch: (torch.randint(0, 20, (batch, 7)),)),
    "recurrent": (Recurrent, lambda batch: {"x": torch.randn(batch, 5, 6), "gain": torch.rand(batch, 5, 1)}),
    "sequential": (sequential, images),
}


def call(module, example):
    return module(**example) if isinstance(example, dict) else module(*example)
