"""Training inside the one call: order, penalise, train, vote, plan, rewrite, verify."""

import functools

import torch
from torch import nn

import fxprune

X = torch.randn(8, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(),
                         nn.Conv2d(8, 4, 1))


def test_the_users_function_trains_an_ordered_copy():
    model, seen = net(), []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fit(ordered: nn.Module, penalty: fxprune.DWGL) -> None:
        seen.append((ordered, penalty))
        norms = ordered[3].weight.flatten(1).norm(dim=1)
        assert (norms.diff() <= 0).all(), "most important first"
        optimizer = torch.optim.SGD(ordered.parameters(), 0.05)
        for _ in range(30):
            optimizer.zero_grad()
            (ordered.train()(X).pow(2).mean() + penalty(ordered)).backward()
            optimizer.step()
            penalty.proximal_(ordered, 0.05)

    small = fxprune.compress(model, X, macs=0.4, train=fit, penalty=functools.partial(fxprune.DWGL, strength=0.05))
    assert len(seen) == 1 and seen[0][0] is not model and seen[0][1].strength == 0.05
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert fxprune.record(small).verification.ok
    assert fxprune.record(small).after.macs <= 0.4 * fxprune.record(small).before.macs
    # Direction: what is kept is a prefix of the order.
    kept = fxprune.record(small).plan.groups["3"].kept
    assert kept == tuple(range(len(kept)))
