"""The list of groups: its order, its families, and what a channel stands for."""

import torch
import torchvision
from torch import nn

from fxprune import analyze
from fxprune.report.group_list import families, portions
from fxprune.report.rows import rows


def test_by_share_of_macs_with_frozen_groups_last():
    found = rows(analyze(torchvision.models.resnet50(), torch.zeros(1, 3, 64, 64)))
    listed = families(found)
    assert sorted(place for family in listed for place in family.places) == list(range(len(found)))
    shares = [found[family.places[0]].macs for family in listed[:-1]]
    assert shares == sorted(shares, reverse=True) and listed[-1].name == "fc"
    blocks = {family.name: family for family in listed}["layer3.*.conv2"]
    assert [found[place].name for place in blocks.places] == [f"layer3.{k}.conv2" for k in range(6)]
    assert blocks.share.endswith(" each") and "layer1.0.conv3" in {family.name for family in listed}


def test_heads_and_groups_say_what_a_channel_stands_for():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(36, 36) for _ in range(4))

        def forward(self, x):
            q, k, v = (layer(x).view(*x.shape[:2], 4, 9).transpose(1, 2) for layer in (self.q, self.k, self.v))
            y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
            return self.out(y.transpose(1, 2).flatten(2))

    found = portions(analyze(Attention(), torch.zeros(2, 5, 36)))
    assert found == {"q": "of 36 (per head)", "v": "of 36 (per head)"}
    vit = portions(analyze(torchvision.models.vit_b_16(image_size=32), torch.zeros(1, 3, 32, 32)))
    assert set(vit.values()) == {"of 2,304 (per head)"} and len(vit) == 24
    grouped = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 1, groups=4), nn.Conv2d(8, 2, 1))
    assert portions(analyze(grouped, torch.zeros(1, 3, 4, 4)))["0"] == "of 12 (per group)"
    assert portions(analyze(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.zeros(1, 4))) == {}
