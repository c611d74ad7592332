"""What branches are worth, against numbers by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune import InputError
from tests.residual_nets import InPlace, Pair, PreActivation, net

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(2)]


def scores(model, criterion, data=None):
    return fxprune.score_branches(fxprune.analyze(model, X), model, criterion, data)


def test_depth_wise():
    model = net(Pair)
    found = scores(model, "depth_wise")
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    for block, score in zip(model.blocks, found.values(), strict=True):
        assert score == pytest.approx(float(sum(p.double().square().sum() for p in block.parameters()).sqrt()))


@pytest.mark.parametrize("kind", [Pair, InPlace, PreActivation])
def test_cosine(kind):
    """1 − E[cos(t, t + f(t))], a vector of channels at each position."""
    model = net(kind)
    found = scores(model, "cosine", BATCHES)
    t = model.stem(torch.cat(BATCHES))
    for block, score in zip(model.blocks, found.values(), strict=True):
        total = (t + block.branch(t)).double()
        cosines = (t.double() * total).sum(1) / t.double().norm(dim=1) / total.norm(dim=1)
        assert score == pytest.approx(float(1 - cosines.nan_to_num(0).mean()), abs=1e-6)  # 0: an angle of nothing
        t = block(t)


def test_l2_and_bn_scale_are_of_what_is_put_out():
    model = net(Pair)
    for block in model.blocks:
        block.bn1.weight.data.fill_(7)
        block.bn2.weight.data.normal_()
    for name, score in scores(model, "l2").items():
        weight = model.get_submodule(name).conv2.weight
        assert score == pytest.approx(float(weight.flatten(1).norm(dim=1).sum()), rel=1e-5)
    for name, score in scores(model, "bn_scale").items():
        assert score == pytest.approx(float(model.get_submodule(name).bn2.weight.abs().sum()), rel=1e-5)


def test_taylor():
    """(Σ w·∂L/∂w)² over each filter of the last layer, the mean over batches, summed over channels."""
    model = net(PreActivation)
    data = [(x, torch.arange(4)) for x in BATCHES]
    found = scores(model, "taylor", data)
    for block, score in zip(model.blocks, found.values(), strict=True):
        weight, rows = block.conv2.weight, []
        for x, labels in data:
            grad, = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), [weight])
            rows.append((weight * grad).double().sum((1, 2, 3)).square().detach().numpy())
        assert score == pytest.approx(float(np.mean(rows, axis=0).sum()), rel=1e-4)


def test_an_object():
    model = net(Pair)
    found = scores(model, lambda group, tensors: np.full(group.size, len(group.members)))
    # conv2's weight and bias, and four of bn2.
    assert found == dict.fromkeys(found, 6.0 * 6)


@pytest.mark.parametrize(("criterion", "data", "message"), [
    ("wanda", BATCHES, r"criterion 'wanda' says nothing of the branch 'blocks.0' by itself"),
    ("cosine", None, "reads data, and none was given"),
    ("taylor", None, "reads data, and none was given"),
    ("l3", None, "must be one of 'depth_wise', 'cosine', .* got 'l3'")])
def test_refused(criterion, data, message):
    with pytest.warns() if criterion == "wanda" else _nothing(), pytest.raises(InputError, match=message):
        scores(net(Pair), criterion, data)


def _nothing():
    from contextlib import nullcontext
    return nullcontext()


def test_another_model():
    with pytest.raises(InputError, match="coupling must come from this model"):
        fxprune.score_branches(fxprune.analyze(net(Pair), X), net(Pair, width=4))
