"""Which residual branches may go, and which may not."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from tests.residual_nets import Encoder, InPlace, Nested, Pair, PreActivation, Scaled, net, without

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Branched(nn.Module):
    """A stem, one sum that a subclass writes, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.f, self.g = (nn.Conv2d(n, 6, 3, padding=1) for n in (3, 6, 6))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.sum(self.stem(x)).mean((2, 3)))


def branches(model):
    return fxprune.analyze(model, X).branches


@pytest.mark.parametrize(("kind", "names"), [
    (Pair, ["blocks.0", "blocks.1"]), (InPlace, ["blocks.0", "blocks.1"]), (PreActivation, ["blocks.0", "blocks.1"]),
    (Scaled, ["blocks.0", "blocks.1"]),
    (Encoder, ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]),
    (Nested, ["blocks.0.inner", "blocks.0", "blocks.1.inner", "blocks.1"])])
def test_names(kind, names):
    model = net(kind, blocks=2)
    assert list(branches(model)) == names


def test_what_goes_with_a_branch():
    found = branches(net(Pair, blocks=1))["blocks.0"]
    layers = {name.rpartition(".")[0] for name in found.tensors}
    assert layers == {"blocks.0.conv1", "blocks.0.bn1", "blocks.0.conv2", "blocks.0.bn2"}
    assert "blocks.0.bn1.num_batches_tracked" in found.tensors and len(found.tensors) == 14
    assert set(found.ends) == {f"blocks.0.{n}" for n in ("conv2.weight", "conv2.bias", "bn2.weight", "bn2.bias",
                                                         "bn2.running_mean", "bn2.running_var")}
    assert found.stream == ("stem",)
    assert set(branches(net(PreActivation, blocks=1))["blocks.0"].ends) == {"blocks.0.conv2.weight",
                                                                            "blocks.0.conv2.bias"}
    assert "blocks.0.scale" in branches(net(Scaled, blocks=1))["blocks.0"].ends


REFUSED = {
    "a shortcut with a projection": lambda self, t: self.f(t) + self.g(t),
    "no parameter of its own": lambda self, t: t + 0.04 * t ** 3,
    "an inner value used elsewhere": lambda self, t: (t + (h := self.f(t))) * self.g(h),
    "an outer value computed from t": lambda self, t: t + self.f(t) * (m := t.mean((2, 3), keepdim=True)) + m * t * m,
    "broadcast": lambda self, t: t + self.f(t).mean((2, 3), keepdim=True),
    "scaled": lambda self, t: torch.add(self.f(t), t, alpha=2),
    "weights that another call reads": lambda self, t: self.f(F.relu(t + self.f(t))),
    "written into what it reads": lambda self, t: (a := t + self.f(F.relu_(b := t.clone()))) * b + a,
    "a product": lambda self, t: t * self.f(t),
    "another dtype": lambda self, t: t + self.f(t).double(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_branch(what):
    assert not branches(type("Net", (Branched,), {"sum": REFUSED[what]})().eval())


TAKEN = {
    "reversed": lambda self, t: self.f(t) + t,
    "by the operator's name": lambda self, t: torch.add(t, self.f(t)),
    "with a size of t": lambda self, t: t + self.f(t).reshape(t.shape[0], 6, t.shape[2], -1),
    "behind an identity": lambda self, t: nn.Identity()(t).contiguous() + self.f(t),
    "a gate inside": lambda self, t: t + torch.sigmoid(self.g(t)) * self.f(t),
    "t is used again": lambda self, t: (t + self.f(t)) * t,
}


@pytest.mark.parametrize("what", TAKEN)
def test_branch(what):
    model = type("Net", (Branched,), {"sum": TAKEN[what]})().eval()
    name, = branches(model)
    t = model.stem(X)
    wanted = model.head((t * t if what == "t is used again" else t).mean((2, 3)))
    assert torch.allclose(fxprune.apply(model, without(model, X, [name]))(X), wanted, atol=1e-6)


def test_layers_of_two_dtypes():
    """Without a branch, a sum would have its shortcut's dtype."""
    class Net(Branched):
        def forward(self, x):
            return self.head(TAKEN["reversed"](self, self.stem(x)).mean((2, 3)).to(self.head.weight))

    model = Net().eval()
    assert branches(model)
    model.head.double()
    assert not branches(model)


def test_it_pickles():
    coupling = fxprune.analyze(net(Pair), X)
    assert pickle.loads(pickle.dumps(coupling)).branches == dict(coupling.branches)


def test_costs_without():
    model = net(Pair, blocks=2)
    coupling = fxprune.analyze(model, X)
    left = coupling.costs_without(["blocks.1"])
    gone = sum(p.numel() for p in model.blocks[1].parameters())
    assert coupling.costs.params(coupling.widths) - left.params(coupling.widths) == gone
    macs = 2 * 2 * 6 * 6 * 9 * 64  # two samples, two convolutions
    assert coupling.costs.macs(coupling.widths) - left.macs(coupling.widths) == macs
    assert set(coupling.costs.widths(coupling.widths)) - set(left.widths(coupling.widths)) == {"blocks.1.conv1",
                                                                                               "blocks.1.conv2"}
    assert coupling.costs_without([]) is coupling.costs
