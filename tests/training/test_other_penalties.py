"""Structured sparsity's other terms, stochastic depth, sparsity without structure: each against a hand-made case."""

import math

import pytest
import torch
from penalty_nets import residual
from torch import nn

import fxprune
from fxprune.errors import InputError
from fxprune.training.stochastic_depth import stochastic_depth, survival
from fxprune.training.structured_sparsity import depth_wise, shape_wise
from fxprune.training.unstructured import SoftSharing, mask_small_weights, settle_masks


def test_shape_wise_is_the_norm_of_columns():
    net = residual()
    expected = sum(conv.weight[:, c, i, j].norm() for conv in (net.stem, net.one.conv1, net.one.conv2, net.two.conv1,
                                                               net.two.conv2)
                   for c in range(conv.in_channels) for i in range(3) for j in range(3))
    torch.testing.assert_close(shape_wise(net), expected)
    with torch.no_grad():
        net.stem.weight.zero_()
    shape_wise(net).backward()
    assert not net.stem.weight.grad.any() and net.one.conv1.weight.grad.isfinite().all()
    with pytest.raises(InputError, match="the model has none"):
        shape_wise(nn.Linear(2, 2))


def test_depth_wise_is_one_norm_a_branch():
    net = residual()
    expected = sum(torch.cat([p.reshape(-1) for conv in (block.conv1, block.conv2) for p in conv.parameters()]).norm()
                   for block in (net.one, net.two))
    torch.testing.assert_close(depth_wise(net, ["one.conv*", "two.conv*"]), expected)
    torch.testing.assert_close(depth_wise(net, "*.conv?"), expected)
    with pytest.raises(InputError, match=r"'three.\*' matches none"):
        depth_wise(net, ["three.*"])


def test_survival_falls_linearly():
    assert [survival(k, 54) for k in (1, 27, 54)] == pytest.approx([1 - 1 / 108, 0.75, 0.5])


def test_branches_drop_out_while_training_alone():
    net = residual()
    branches, x = ["one.bn2", "two.bn2"], torch.randn(3, 3, 8, 8)
    expected = net.eval()(x)
    outputs: list[torch.Tensor] = []
    handle = net.two.register_forward_hook(lambda module, args, out: outputs.append((args[0], out)))
    torch.manual_seed(0)
    with stochastic_depth(net, branches, last=0.25):
        torch.testing.assert_close(net(x), expected)
        outputs.clear()
        net.train()
        for _ in range(400):
            net(x)
    # What a block that drops out adds is nothing: its output is the shortcut's.
    gone = sum(torch.equal(torch.relu(before), after) for before, after in outputs) / 400
    assert gone == pytest.approx(0.75, abs=0.08)
    handle.remove()
    assert not net.one.bn2._forward_hooks and not net.two.bn2._forward_hooks


def test_survivors_are_scaled_so_that_the_mean_stays():
    net = nn.Sequential(nn.Identity()).train()
    torch.manual_seed(0)
    with stochastic_depth(net, ["0"], last=0.5, mode="row"):
        out = net(torch.ones(4000, 1))
    assert sorted(out.unique().tolist()) == [0.0, 2.0] and float(out.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("arguments, words", [
    ({"branches": ["one.bn3"]}, "one.bn3"), ({"branches": []}, "at least one module"),
    ({"branches": ["one.bn2"], "last": 0}, "probability"), ({"branches": ["one.bn2"], "mode": "all"}, "mode"),
])
def test_stochastic_depth_refuses(arguments, words):
    with pytest.raises(InputError, match=words), stochastic_depth(residual(), **arguments):
        pass


def test_small_weights_are_masked_iteratively():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    before = net[0].weight.detach().clone()
    first = mask_small_weights(net, 0.8)
    small = before.abs() < 0.8 * before.std()
    assert first["0"] == pytest.approx(float(small.float().mean())) and set(first) == {"0", "2"}
    net(torch.randn(5, 20)).square().mean().backward()
    assert not net[0].weight_orig.grad[small].any() and net[0].weight_orig.grad[~small].any()
    # Again: of the survivors' own spread.
    survivors = before[~small]
    second = mask_small_weights(net, 1.1)
    assert second["0"] == pytest.approx(float((small | (before.abs() < 1.1 * survivors.std())).float().mean()))
    settle_masks(net)
    assert set(dict(net.named_parameters())) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert float((net[0].weight == 0).float().mean()) == pytest.approx(second["0"])
    # In front of a structured cut: a filter of which little is left goes first.
    with torch.no_grad():
        net[0].weight[7] = 0
    small_net = fxprune.compress(net, torch.zeros(1, 20), channels=0.5)
    assert 7 not in fxprune.record(small_net).plan.groups["0"].kept


def test_soft_sharing_is_its_formula():
    torch.manual_seed(0)
    layer, penalty = nn.Linear(3, 2), SoftSharing(components=3, strength=0.01)
    with torch.no_grad():
        penalty.logits.copy_(torch.tensor([0.3, -0.2]))
        penalty.log_precisions.copy_(torch.tensor([3.0, 2.0, 2.5]))
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.cat([torch.tensor([0.99]), 0.01 * penalty.logits.softmax(0)])),
        torch.distributions.Normal(torch.tensor([0.0, -0.6, 0.6]), (-0.5 * penalty.log_precisions).exp()))
    gamma = torch.distributions.Gamma(torch.tensor([5e3, 250.0, 250.0]), torch.tensor([2.0, 0.1, 0.1]))
    expected = -0.01 * mixture.log_prob(layer.weight).sum() - gamma.log_prob(penalty.log_precisions.exp()).sum()
    torch.testing.assert_close(penalty(layer), expected)


def test_weights_are_drawn_together_and_quantised():
    torch.manual_seed(0)
    layer = nn.Linear(40, 40, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 0.0, 0.5])[torch.randint(0, 3, (40, 40))])
        layer.weight.add_(0.03 * torch.randn(40, 40))
    # The paper's hyperpriors make the components narrow: precisions near 2,500.
    penalty = SoftSharing(components=4, strength=0.05, at_zero=0.6)
    optimizer = torch.optim.Adam([{"params": layer.parameters(), "lr": 1e-3},
                                  {"params": penalty.parameters(), "lr": 2e-2}])
    for _ in range(300):
        optimizer.zero_grad()
        penalty(layer).backward()
        optimizer.step()
    left = penalty.quantise_(layer)
    values = layer.weight.unique()
    assert left <= 4 and len(values) <= 4 and 0.0 in values.tolist()
    assert any(abs(v - 0.5) < 0.1 for v in values.tolist())
    assert 0.5 < float((layer.weight == 0).float().mean()) < 0.8


@pytest.mark.parametrize("make", [lambda: SoftSharing(components=1), lambda: SoftSharing(at_zero=1.0),
                                  lambda: SoftSharing(strength=-1), lambda: mask_small_weights(nn.Linear(2, 2), -1)])
def test_bad_arguments(make):
    with pytest.raises(InputError, match="must be"):
        make()


def test_components_that_are_one_are_merged():
    penalty = SoftSharing(components=4)
    with torch.no_grad():
        penalty.means.copy_(torch.tensor([-0.4, 0.7, 0.7]))
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.71, 0.01], [-0.39, 0.69]]))
        penalty.log_precisions.fill_(math.log(400.0))
    assert penalty.quantise_(layer) == 3
    torch.testing.assert_close(layer.weight, torch.tensor([[0.7, 0.0], [-0.4, 0.7]]), check_device=False)
