"""A small net whose coupling is written down by hand: a residual add, a concatenation, a flatten, a tied weight."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fxprune.capture.model_walk import signature_of
from fxprune.ir.costs import Costs, Count
from fxprune.ir.example_inputs import Inputs, TensorSpec
from fxprune.ir.groups import CARRIER, CONSUMER, PRODUCER, CouplingGroup, Member
from fxprune.ir.units import Reason


class Net(nn.Module):
    """conv1 (8) + conv2 (8) → conv3 (6), conv4 (4) → cat → 2x2 pooling → flatten → fc (5), fc2 tied with fc."""

    def __init__(self, a: int = 8, b: int = 6, c: int = 4):
        super().__init__()
        self.conv1 = nn.Conv2d(3, a, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.conv2 = nn.Conv2d(a, a, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(a)
        self.conv3 = nn.Conv2d(a, b, 1)
        self.conv4 = nn.Conv2d(a, c, 1)
        self.fc = nn.Linear(4 * (b + c), 5)
        self.fc2 = nn.Linear(4 * (b + c), 5, bias=False)
        self.fc2.weight = self.fc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + self.bn2(self.conv2(x))
        x = torch.cat([self.conv3(x), self.conv4(x)], 1).relu()
        x = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.fc(x) + self.fc2(x)


def member(name: str, dim: int, role: str, size: int, times: int = 1, offset: int = 0) -> Member:
    channel = np.repeat(np.arange(size), times)
    return Member(name, dim, role, channel, np.arange(offset, offset + size * times))


def net_groups() -> dict[str, CouplingGroup]:
    norms = [member(f"{bn}.{name}", 0, CARRIER, 8) for bn in ("bn1", "bn2")
             for name in ("weight", "bias", "running_mean", "running_var")]
    conv1 = CouplingGroup("conv1", 8, (
        member("conv1.weight", 0, PRODUCER, 8), member("conv2.weight", 0, PRODUCER, 8), *norms,
        *(member(f"{name}.weight", 1, CONSUMER, 8) for name in ("conv2", "conv3", "conv4"))), ("add",))
    conv3 = CouplingGroup("conv3", 6, (
        member("conv3.weight", 0, PRODUCER, 6), member("conv3.bias", 0, CARRIER, 6),
        member("fc.weight", 1, CONSUMER, 6, 4)), ("cat",))
    conv4 = CouplingGroup("conv4", 4, (
        member("conv4.weight", 0, PRODUCER, 4), member("conv4.bias", 0, CARRIER, 4),
        member("fc.weight", 1, CONSUMER, 4, 4, 24)), ("cat",))
    fc = CouplingGroup("fc", 5, (member("fc.weight", 0, PRODUCER, 5), member("fc.bias", 0, CARRIER, 5)), (),
                       Reason("model output", "output"))
    return {g.name: g for g in (conv1, conv3, conv4, fc)}


def count(*terms: tuple[int, list[tuple[int, dict[int, int]]]]) -> Count:
    """A Count from (coefficient, [(base, {group: multiplicity}), …]) per term."""
    base, rows, coefficients, indices = [1], [], [], []
    for coefficient, factors in terms:
        coefficients.append(coefficient)
        indices.append([len(base) + i for i in range(len(factors))])
        for own, by_group in factors:
            rows += [(len(base), group, times) for group, times in by_group.items()]
            base.append(own)
    width = max(map(len, indices))
    padded = [row + [0] * (width - len(row)) for row in indices]
    factor, group, multiplicity = np.array(rows, np.int64).reshape(-1, 3).T
    return Count(np.array(coefficients), np.array(padded), np.array(base), factor, group, multiplicity)


def net_costs() -> Costs:
    a, b, c = (0, {0: 1}), (0, {1: 1}), (0, {2: 1})
    flat, out = (0, {1: 4, 2: 4}), (0, {3: 1})
    params = count((27, [a]), (2, [a]), (9, [a, a]), (2, [a]), (1, [a, b]), (1, [b]), (1, [a, c]), (1, [c]),
                   (1, [flat, out]), (1, [out]))
    macs = count((27 * 64, [a]), (9 * 64, [a, a]), (64, [a, b]), (64, [a, c]), (2, [flat, out]))
    return Costs(("conv1", "conv3", "conv4", "fc"), macs, params)


@dataclass(frozen=True)
class FakePolicy:
    heads: str = "dims"
    grouped: str = "within"


@dataclass(frozen=True)
class FakeCoupling:
    """What `fxprune.planning.draw.plan` needs of a Coupling."""

    groups: dict
    costs: Costs
    signature: object
    inputs: Inputs
    policy: FakePolicy = field(default_factory=FakePolicy)
    mode: str = "graph"

    def costs_without(self, branches) -> Costs:
        assert not branches
        return self.costs


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    for name, tensor in net.named_parameters():
        nn.init.normal_(tensor, 0.5 if name.startswith("bn") else 0.0)
    for tensor in net.buffers():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return net.eval()


@pytest.fixture
def coupling(net: Net) -> FakeCoupling:
    inputs = Inputs((TensorSpec((1, 3, 8, 8), "float32"),), {"scale": 1.0, "names": ["a", ("b", None)]}, "layer1")
    return FakeCoupling(net_groups(), net_costs(), signature_of(net), inputs)


@pytest.fixture
def tools() -> SimpleNamespace:
    """Helpers that more than one test file uses."""
    return SimpleNamespace(Net=Net, member=member, count=count)
