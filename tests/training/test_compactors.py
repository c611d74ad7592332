"""ResRep: the rule on gradients by hand, what is chosen, and the same function once compactors are merged."""

import copy

import numpy as np
import pytest
import torch
from penalty_nets import residual
from torch import nn

import fxprune
from fxprune.errors import InputError
from fxprune.training.compactors import Compactor, ResRep

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def depthwise() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
                         nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(),
                         nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 256, 10), nn.ReLU(),
                         nn.Linear(10, 3))


def shaken(net: nn.Module, parameters: list[nn.Parameter]) -> nn.Module:
    """With statistics and compactors as training leaves them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        for q in parameters:
            q.add_(0.3 * torch.randn_like(q))
    return net.eval()


@pytest.mark.parametrize("make", [residual, depthwise])
def test_compactors_begin_as_nothing_and_are_merged_exactly(make):
    net = make().eval()
    coupling, keys, whole = fxprune.analyze(net, X), set(net.state_dict()), net(X)
    penalty = ResRep(coupling)
    parameters = penalty.attach_(net)
    assert set(penalty.groups) == set(coupling.prunable) and len(parameters) == len(penalty.layers)
    torch.testing.assert_close(net(X), whole)
    expected = shaken(net, parameters)(X)
    assert not torch.allclose(expected, whole, atol=1e-2)
    assert set(penalty.merge_(net).values()) == {0}
    torch.testing.assert_close(net(X), expected, atol=1e-4, rtol=1e-4)
    assert set(net.state_dict()) == keys and not any(module._forward_hooks for module in net.modules())


def test_the_rule_by_hand():
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    penalty = ResRep(fxprune.analyze(net, torch.zeros(1, 2)), macs=0.7, strength=0.1, every=2, more=1)
    q, = penalty.attach_(net)
    with torch.no_grad():
        q.copy_(torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 2.0]]]))
    gradient = torch.arange(9.0).view(1, 3, 3)
    unit = q.detach() / torch.tensor([5.0, 1.0, 2.0]).view(1, 3, 1)
    for update in range(4):
        q.grad = gradient.clone()
        penalty.add_(net)
        # At first nothing is to be forgotten; from the third update on, the row of the least norm.
        kept = torch.tensor([1.0, float(update < 2), 1.0]).view(1, 3, 1)
        torch.testing.assert_close(q.grad, kept * gradient + 0.1 * unit)
    assert penalty.norms_of(net)["0"].tolist() == pytest.approx([5, 1, 2])
    other = ResRep(penalty.coupling, macs=0.7, strength=0.1, every=2, more=1)
    other.load_state_dict(penalty.state_dict())
    assert other.updates == 4 and other.forgotten["0"].tolist() == [False, True, False]


def test_coupled_producers_forget_together():
    net = residual()
    penalty = ResRep(fxprune.analyze(net, X))
    penalty.attach_(net)
    for layer in (net.bn, net.one.bn2, net.two.bn2):
        assert isinstance(layer.compactor, Compactor)
        with torch.no_grad():
            layer.compactor.weight[0, 5] = 0.0
    with torch.no_grad():
        net.bn.compactor.weight[0, 2] = 0.0
    group = next(name for name, g in penalty.groups.items() if len(g.voters) == 3)
    expected = np.full(8, 3 ** 0.5)
    expected[[5, 2]] = 0, 2 ** 0.5
    np.testing.assert_allclose(penalty.norms_of(net)[group], expected)
    whole = net.eval()(X)
    assert penalty.merge_(net)[group] == 1
    torch.testing.assert_close(net(X), whole, atol=1e-4, rtol=1e-4)
    # What is forgotten costs nothing to remove.
    small = fxprune.compress(net, X, widths={group: 7})
    assert 5 not in fxprune.record(small).plan.groups[group].kept
    torch.testing.assert_close(small(X), whole, atol=1e-4, rtol=1e-4)


def test_choices_meet_the_budget_and_leave_one():
    net = residual()
    coupling = fxprune.analyze(net, X)
    penalty = ResRep(coupling, macs=0.5)
    norms = {name: np.arange(1.0, group.size + 1) for name, group in coupling.prunable.items()}
    for most, least in ((0, 0), (3, 3), (1000, 4)):
        gone = penalty.chosen(norms, most)
        widths = coupling.widths.copy()
        for name, mask in gone.items():
            assert mask.tolist() == sorted(mask.tolist(), reverse=True)  # the least first
            widths[coupling.costs.groups.index(name)] -= mask.sum()
        count = sum(int(mask.sum()) for mask in gone.values())
        assert count == most if most < 1000 else count >= least
    assert coupling.costs.macs(widths) <= 0.5 * coupling.costs.macs(coupling.widths)
    penalty.macs = 1e-9
    assert {int((~mask).sum()) for mask in penalty.chosen(norms, 1000).values()} == {1}


def test_training_forgets_at_little_loss():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2))
    coupling = fxprune.analyze(net, torch.zeros(1, 4))
    penalty = ResRep(coupling, macs=0.5, strength=0.02, every=5, more=1)
    parameters = penalty.attach_(net)
    x = torch.randn(64, 4)
    want = copy.deepcopy(net)(x).detach()
    optimizer = torch.optim.SGD([{"params": parameters, "lr": 0.1}, {"params": net[2].parameters(), "lr": 0.01}])
    for _ in range(650):
        optimizer.zero_grad()
        (10 * (net(x) - want).square().mean()).backward()
        penalty.add_(net)
        optimizer.step()
    norms = np.sort(penalty.norms_of(net)["0"])
    error = float((net(x) - want).detach().square().mean() / want.var())
    assert (norms[:6] < 0.01).all() and (norms[6:] > 0.05).all() and error < 0.2, (norms, error)


@pytest.mark.parametrize("arguments, words", [
    ({"macs": 1.0}, "macs must be a fraction"), ({"strength": -1}, "strength must be"),
    ({"every": 0}, "every must be an integer"), ({"more": 0.5}, "more must be an integer"),
])
def test_bad_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        ResRep(fxprune.analyze(residual(), X), **arguments)


def test_what_cannot_be_mixed():
    net = residual()
    penalty = ResRep(fxprune.analyze(net, X))
    penalty.attach_(net)
    with pytest.raises(InputError, match="attached once"):
        penalty.attach_(net)
    table = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 2))
    with pytest.raises(InputError, match="no group is like that"):
        ResRep(fxprune.analyze(table, torch.zeros(2, 3, dtype=torch.long))).attach_(table)
