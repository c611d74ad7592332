"""On real architectures the penalty is what its definition says, member by member, and what goes to zero can go."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from fxprune import analyze
from fxprune.planning.draw import plan
from fxprune.training import DWGL

VISION = torchvision.models


def vit():
    return VISION.VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64,
                                    num_classes=10)


class Grouped(nn.Module):
    """A grouped convolution, a concatenation, a flatten and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.c, self.lstm = nn.Conv2d(32, 8, 1), nn.LSTM(32, 6, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = self.c(torch.cat([x, self.b(x)], 1)).flatten(2).transpose(1, 2).flatten(1)
        return self.fc(self.lstm(x.unflatten(1, (-1, 32)))[0])


NETS = {"shufflenet": (lambda: VISION.shufflenet_v2_x0_5(num_classes=10), 64),
        "mobilenet_v2": (lambda: VISION.mobilenet_v2(num_classes=10), 64),
        "densenet": (lambda: VISION.DenseNet(8, (2, 2), 16, num_classes=5), 32),
        "vit": (vit, 32), "grouped": (Grouped, 8)}


def squares(model: nn.Module, member, size: int) -> np.ndarray:
    """Σ w² of each channel's slices in one member."""
    weight = dict(model.named_parameters())[member.name].detach().double().movedim(member.dim, 0)
    sums = weight.reshape(len(weight), -1).square().sum(1).numpy()
    return np.bincount(member.channel, weights=sums[member.index], minlength=size)


@pytest.mark.parametrize("name", NETS)
def test_the_sum_member_by_member(name):
    make, size = NETS[name]
    torch.manual_seed(0)
    model = make()
    coupling = analyze(model, torch.zeros(1, 3, size, size))
    voters = consumers = 0.0
    parameters = dict(model.named_parameters())
    for group in coupling.prunable.values():
        rise = 1.0 + 2.0 * (np.arange(group.size) / max(group.size - 1, 1)) ** 2
        for member in group.voters:
            voters += (rise * np.sqrt(squares(model, member, group.size))).sum()
        for member in group.consumers:
            if member.name in parameters:
                consumers += (rise * np.sqrt(squares(model, member, group.size))).sum()
    options = {"strength": 1.0, "direction": (1.0, 3.0), "power": 2.0}
    assert DWGL(coupling, **options)(model).item() == pytest.approx(voters, rel=1e-5)
    assert DWGL(coupling, consumers=True, **options)(model).item() == pytest.approx(voters + consumers, rel=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_zeros_are_what_the_plan_removes(name):
    make, size = NETS[name]
    torch.manual_seed(0)
    model = make()
    coupling = analyze(model, torch.zeros(1, 3, size, size))
    dwgl = DWGL(coupling, 1.0, direction=(0.0, 4.0))
    dwgl.balance_(model)
    mean = np.mean([b.norms.mean() for b in dwgl.votes(model).ballots.values()])
    for _ in range(10):
        dwgl.proximal_(model, 0.04 * mean)
    votes = dwgl.votes(model)
    drawn = plan(coupling, model, threshold=1e-3, vote="intersection")
    assert {n: g.kept for n, g in drawn.groups.items()} == {n: tuple(k) for n, k in votes.kept("intersection").items()}
    assert votes.fraction("intersection") < 1.0
