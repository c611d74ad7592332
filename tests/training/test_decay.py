"""Channel decays: rates held against the methods' formulas by hand, gradients against autograd, resumption."""

import math

import numpy as np
import pytest
import torch
from penalty_nets import residual
from torch import nn

import fxprune
from fxprune.errors import InputError
from fxprune.training.decay import SPP, AutoBalanced, ChannelDecay, GReg1, IncReg, SparseLearning
from fxprune.training.decay.incremental import increments

X = torch.zeros(2, 3, 8, 8)


@pytest.fixture
def net():
    return residual()


@pytest.fixture
def coupling(net):
    return fxprune.analyze(net, X)


@pytest.fixture
def plan(net, coupling):
    return fxprune.plan(coupling, net, channels=0.5, criterion="l1", scope="uniform")


class Ramp(ChannelDecay):
    """λ_k = k."""

    def rates(self, model):
        return {name: np.arange(group.size, dtype=float) for name, group in self.groups.items()}


def by_hand(net, coupling, rates):
    """½ Σ λ_k ‖slices of channel k‖², slice by slice, biases and statistics left out."""
    parameters, total = dict(net.named_parameters()), 0.0
    for name, group in coupling.prunable.items():
        for member in group.members:
            if member.name in parameters and not member.name.endswith("bias"):
                rows = parameters[member.name].movedim(member.dim, 0)
                for index, channel in zip(member.index, member.channel, strict=True):
                    total = total + 0.5 * rates[name][channel] * rows[index].square().sum()
    return total


def test_gradients_are_those_of_the_squares(net, coupling):
    penalty = Ramp(coupling)
    expected = by_hand(net, coupling, penalty.rates(net))
    wanted = torch.autograd.grad(expected, list(net.parameters()), allow_unused=True)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    penalty.add_(net)
    for parameter, gradient in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, 1 + (torch.zeros_like(parameter) if gradient is None else gradient))
    value = penalty(net)
    torch.testing.assert_close(value, expected)
    again = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
    for mine, gradient in zip(again, wanted, strict=True):
        assert mine is None or gradient is None or torch.allclose(mine, gradient)
        assert (mine is None) == (gradient is None)


def test_parameters_without_a_gradient_stay(net, coupling):
    Ramp(coupling).add_(net)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_sparse_learning_is_its_formula(net, coupling):
    found = SparseLearning(coupling, strength=0.01).rates(net)
    parameters = dict(net.named_parameters())
    group = coupling.groups["one.conv1"]
    squares = []
    for member in group.members:
        if member.name in parameters and not member.name.endswith("bias"):
            rows = parameters[member.name].detach().double().movedim(member.dim, 0)[member.index]
            squares.append(np.bincount(member.channel, rows.reshape(len(rows), -1).square().sum(1)))
    squares = [row / row.mean() for row in squares]
    importance = np.sqrt(sum(squares))
    expected = 0.01 * 2 ** (4 * (importance.max() - importance) / (importance.max() - importance.min()))
    np.testing.assert_allclose(found["one.conv1"], expected, rtol=1e-6)
    assert expected.min() == pytest.approx(0.01) and expected.max() == pytest.approx(0.16)


def test_what_a_plan_removes_decays_ever_faster(net, coupling, plan):
    penalty = GReg1(coupling, plan, step=0.1, every=3, ceiling=0.25)
    seen = [penalty.rates(net) for _ in range(10)]
    gone = ~np.isin(np.arange(6), plan.groups["one.conv1"].kept)
    assert gone.sum() == 3
    assert [float(r["one.conv1"][gone].max()) for r in seen] == pytest.approx([0, 0, .1, .1, .1, .2, .2, .2, .25, .25])
    assert not any(r["one.conv1"][~gone].any() for r in seen)
    other = GReg1(coupling, plan, step=0.1, every=3, ceiling=0.25)
    other.load_state_dict(penalty.state_dict())
    np.testing.assert_array_equal(other.rates(net)["one.conv1"], penalty.rates(net)["one.conv1"])


def test_increments_are_the_curve():
    k, peak = 8, 2.0
    alpha = math.log(8) / k
    turn = math.log(4) / alpha
    found = increments(12, k, peak)
    for j, value in enumerate(found):
        expected = peak * math.exp(-alpha * j) if j < turn else \
            0.5 * peak - peak * math.exp(-alpha * (2 * turn - j))
        assert value == pytest.approx(expected)
    assert found[0] == peak and found[k] == pytest.approx(0.0, abs=1e-12) and (np.diff(found) < 0).all()


def test_incremental_regularisation_by_hand(net, coupling):
    penalty = IncReg(coupling, channels=0.5, peak=0.1, target=0.15)
    order = np.argsort(penalty.magnitudes(net)["one.conv1"], kind="stable")
    first = penalty.rates(net)["one.conv1"].copy()
    np.testing.assert_allclose(first[order], np.clip(increments(6, 3, 0.1), 0, 0.15))
    second = penalty.rates(net)["one.conv1"].copy()
    np.testing.assert_allclose(second[order], np.clip(first[order] + increments(6, 3, 0.1), 0, 0.15))
    assert penalty.gone["one.conv1"].sum() == 1 and penalty.gone["one.conv1"][order[0]]
    other = IncReg(coupling, channels=0.5, peak=0.1, target=0.15)
    other.load_state_dict(penalty.state_dict())
    for _ in range(20):
        one, two = penalty.rates(net), other.rates(net)
        assert all((one[name] == two[name]).all() for name in one)
    assert {name: int(gone.sum()) for name, gone in penalty.gone.items()} == penalty.going
    assert penalty.gone["one.conv1"][order[:3]].all()


def test_what_is_weak_now_may_recover(net, coupling):
    penalty = IncReg(coupling, channels=0.5, peak=0.1, target=10.0)
    order = np.argsort(penalty.magnitudes(net)["one.conv1"], kind="stable")
    before = penalty.rates(net)["one.conv1"][order[0]]
    with torch.no_grad():
        net.one.conv1.weight[int(order[0])] *= 100
    for _ in range(8):
        after = penalty.rates(net)["one.conv1"][order[0]]
    assert before == pytest.approx(0.1) and after < before


def test_auto_balanced_by_hand(net, coupling, plan):
    penalty = AutoBalanced(coupling, plan, strength=0.01)
    size = penalty.magnitudes(net)["one.conv1"]
    weak = ~np.isin(np.arange(6), plan.groups["one.conv1"].kept)
    theta = size[weak].max()
    expected = np.where(weak, 1 + np.log(theta / size), -1 - np.log(size / theta))
    energy = expected * net.one.conv1.weight.detach().flatten(1).square().sum(1).double().numpy()
    tau = -0.01 * energy[weak].sum() / energy[~weak].sum()
    found = penalty.rates(net)["one.conv1"]
    np.testing.assert_allclose(found, np.where(weak, 0.01, tau) * expected, rtol=1e-5)
    # Decay and stimulation cancel in sum, and the importance stays that of the first update.
    assert (found[weak] > 0).all() and (found[~weak] < 0).all()
    with torch.no_grad():
        net.one.conv1.weight.mul_(3)
    np.testing.assert_allclose(penalty.rates(net)["one.conv1"], found, rtol=1e-5)
    other = AutoBalanced(coupling, plan, strength=0.01)
    other.load_state_dict(penalty.state_dict())
    np.testing.assert_array_equal(other.rates(net)["one.conv1"], penalty.rates(net)["one.conv1"])


def test_masks_are_drawn_and_taken_back(net, coupling):
    penalty = SPP(coupling, channels=0.5, peak=0.4, seed=3)
    before = {name: p.clone() for name, p in net.named_parameters()}
    with penalty.masked(net) as there:
        gone = ~there["one.conv1"]
        assert not net.one.conv1.weight[torch.from_numpy(gone)].any()
        assert torch.equal(net.one.conv1.weight[torch.from_numpy(~gone)],
                           before["one.conv1.weight"][torch.from_numpy(~gone)])
        net(torch.randn(2, 3, 8, 8)).square().mean().backward()
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert net.one.conv1.weight.grad.any()
    with pytest.raises(ZeroDivisionError), penalty.masked(net):
        raise ZeroDivisionError
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_probabilities_fall_to_what_is_to_go(net, coupling):
    penalty = SPP(coupling, channels=0.5, peak=0.4)
    order = np.argsort(penalty.magnitudes(net)["one.conv1"], kind="stable")
    with penalty.masked(net):
        np.testing.assert_allclose(penalty.probability["one.conv1"][order], np.clip(1 - increments(6, 3, 0.4), 0, 1))
    saved = penalty.state_dict()
    other = SPP(coupling, channels=0.5, peak=0.4, seed=9)
    other.load_state_dict(saved)
    for _ in range(10):
        with penalty.masked(net) as one:
            pass
        with other.masked(net) as two:
            assert all((one[name] == two[name]).all() for name in one)
    assert all((p == 0).sum() == penalty.going[name] for name, p in penalty.probability.items())
    assert not penalty.probability["one.conv1"][order[:3]].any()


def test_a_decayed_net_is_cut_at_little_loss(net, coupling, plan):
    """What was to go has decayed: the plan drawn afterwards is the one before, and the function hardly changes."""
    penalty = GReg1(coupling, plan, step=1.0, every=1, ceiling=20.0)
    optimizer = torch.optim.SGD(net.parameters(), 0.02)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(120):
        optimizer.zero_grad()
        (net(x).square().mean() * 0).backward()
        penalty.add_(net)
        optimizer.step()
    again = fxprune.plan(coupling, net, channels=0.5, criterion="l1", scope="uniform")
    assert again.channels == plan.channels


@pytest.mark.parametrize("make", [
    lambda c, p: GReg1(c, p, step=0), lambda c, p: GReg1(c, p, every=0), lambda c, p: GReg1(c, "plan"),
    lambda c, p: IncReg(c, channels=1.0), lambda c, p: IncReg(c, channels=True), lambda c, p: IncReg(c, peak=-1),
    lambda c, p: SPP(c, channels=0), lambda c, p: SPP(c, decay=-1), lambda c, p: SparseLearning(c, strength=-1),
    lambda c, p: AutoBalanced(c, 3), lambda c, p: SparseLearning("coupling"),
])
def test_bad_arguments(coupling, plan, make):
    with pytest.raises(InputError, match=r"must be"):
        make(coupling, plan)


def test_states_and_plans_of_others(net, coupling, plan):
    other = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    theirs = fxprune.plan(fxprune.analyze(other, torch.zeros(1, 3)), other, channels=0.5)
    with pytest.raises(InputError, match="must be of this coupling, which has no group '0' of 8 channels"):
        GReg1(coupling, theirs)
    with pytest.raises(InputError, match="must be that of a GReg1, with updates; got rates, ranks, updates"):
        GReg1(coupling, plan).load_state_dict(IncReg(coupling).state_dict())
    SparseLearning(coupling).load_state_dict(SparseLearning(coupling).state_dict())
