"""Mutations of the rewriter: each makes a result that is wrong, and the proof, at its small sizes, refuses it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import VerificationError
from fxprune.capture.layer_classes import CONVOLUTION
from fxprune.rewrite import emit, submodules
from fxprune.rewrite.module_sizes import REMEMBERED

EXAMPLE = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Most of what a rewriter has to write anew: groups, pieces, bounds, indices, heads, scales, two graphs."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, stride=4), nn.BatchNorm2d(16, eps=1e-2)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.register_buffer("turned", torch.arange(15, -1, -1))
        self.tokens, self.scaled = nn.Linear(24, 24), nn.LayerNorm(24)
        self.q, self.k, self.v = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.grouped(x)[:, self.turned]
        one, two = x.split([8, 8], 1)
        x = torch.cat([one - two, x[:, :8], F.pad(x[:, 8:], (0, 0, 0, 0, 0, 0))], 1)
        if self.training:
            x = x * 1.5
        x = self.scaled(self.tokens(x.flatten(2).transpose(1, 2)))
        heads = [layer(x).unflatten(-1, (3, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        x = F.scaled_dot_product_attention(*heads)
        x = x * x.shape[-1] ** -0.5
        return self.head(x.transpose(1, 2).flatten(2).mean(1))


def every(monkeypatch, target, change):
    """Change what the rewriter makes of the calls of one target: ``change(args, kwargs)``."""
    rewritten = emit.rewritten

    def mutated(node, view, constant):
        found, args, kwargs = rewritten(node, view, constant)
        return (found, *change(args, kwargs)) if target in (found, getattr(found, "__name__", "")) else \
            (found, args, kwargs)

    monkeypatch.setattr(emit, "rewritten", mutated)


def stale(monkeypatch, target):
    """Calls of one target keep the sizes that they held."""
    rewritten = emit.rewritten
    monkeypatch.setattr(emit, "rewritten", lambda node, view, constant: (node.target, node.args, node.kwargs)
                        if target in (node.target, getattr(node.target, "__name__", "")) else
                        rewritten(node, view, constant))


def slices(monkeypatch, change):
    """Weights are cut along other indices than the plan's."""
    like = submodules.sliced_like
    monkeypatch.setattr(submodules, "sliced_like", lambda tensor, keep: like(tensor, change(dict(keep))))


def weights_of_the_next_channels(monkeypatch):
    slices(monkeypatch, lambda keep: {dim: (*kept[1:], kept[0]) for dim, kept in keep.items()})


def consumers_that_are_not_cut(monkeypatch):
    slices(monkeypatch, lambda keep: {dim: kept for dim, kept in keep.items() if dim != 1})


def half_the_groups(monkeypatch):
    monkeypatch.setitem(REMEMBERED, CONVOLUTION, lambda s: {"groups": max(s.module.groups // 2, 1)})


def a_norm_that_remembers_its_width(monkeypatch):
    monkeypatch.setitem(REMEMBERED, nn.LayerNorm, lambda s: {})


def a_norm_with_the_default_epsilon(monkeypatch):
    adjusted = submodules.Parts._adjusted

    def mutated(self, copied, *rest):
        if isinstance(copied, nn.BatchNorm2d):
            copied.eps = 1e-5
        return adjusted(self, copied, *rest)

    monkeypatch.setattr(submodules.Parts, "_adjusted", mutated)


def pieces_of_the_old_lengths(monkeypatch):
    stale(monkeypatch, "split")


def bounds_one_off(monkeypatch):
    def shifted(args, kwargs):
        whole, bounds = args[1] if isinstance(args[1], tuple) and len(args[1]) == 2 else (None, None)
        if not isinstance(bounds, slice) or not isinstance(bounds.stop, int):
            return args, kwargs
        return (args[0], (whole, slice(1, bounds.stop + 1))), kwargs

    every(monkeypatch, "getitem", shifted)


def a_stale_head_count(monkeypatch):
    every(monkeypatch, "unflatten", lambda args, kwargs: ((*args[:-1], args[-1][::-1]), kwargs))


def a_shrunken_size_as_a_value(monkeypatch):
    monkeypatch.setattr(emit._Rewriter, "_value", lambda self, node: self.nodes[node])


def the_default_scale(monkeypatch):
    every(monkeypatch, "scaled_dot_product_attention",
          lambda args, kwargs: (args, {key: value for key, value in kwargs.items() if key != "scale"}))


def operands_swapped(monkeypatch):
    every(monkeypatch, "sub", lambda args, kwargs: (args[::-1], kwargs))


def an_index_table_out_of_order(monkeypatch):
    renumber, constant = submodules.Parts.renumber, submodules.Parts.constant
    monkeypatch.setattr(submodules.Parts, "renumber", lambda self, name, value: renumber(self, name, value.roll(1)))
    monkeypatch.setattr(submodules.Parts, "constant", lambda self, name, value: constant(self, name, value.roll(1)))


def the_modes_swapped(monkeypatch):
    dual = emit.DualGraphModule
    monkeypatch.setattr(emit, "DualGraphModule", lambda root, evaluated, trained, *rest: dual(
        root, trained, evaluated, *rest))


def a_call_left_out(monkeypatch):
    every(monkeypatch, "relu", lambda args, kwargs: (args, {**kwargs, "inplace": False}))
    create = emit._Rewriter._create

    def mutated(self, node, target, args, kwargs):
        return args[0] if getattr(target, "__name__", "") == "relu" else create(self, node, target, args, kwargs)

    monkeypatch.setattr(emit._Rewriter, "_create", mutated)


MUTATIONS = [weights_of_the_next_channels, consumers_that_are_not_cut, half_the_groups, a_norm_that_remembers_its_width,
             a_norm_with_the_default_epsilon, pieces_of_the_old_lengths, bounds_one_off, a_stale_head_count,
             a_shrunken_size_as_a_value, the_default_scale, operands_swapped, an_index_table_out_of_order,
             the_modes_swapped, a_call_left_out]


def compressed():
    torch.manual_seed(0)
    model = Net()
    coupling = fxprune.analyze(model, EXAMPLE)
    plan = fxprune.plan(coupling, model, channels=0.5)
    return model, plan, fxprune.apply(model, plan, verify=False)


def test_without_a_mutation_it_is_proven_at_small_sizes():
    model, plan, small = compressed()
    proof = fxprune.verify(model, small, plan)
    assert proof.ok and proof.notes == () and len(plan.groups) >= 5
    assert proof.shapes == (((1, 3, 64, 32),), ((2, 3, 32, 64),)) * 2
    assert any(node.target == "unflatten" for node in small.graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_refused(monkeypatch, mutate):
    mutate(monkeypatch)
    model, plan, small = compressed()
    with pytest.raises(VerificationError):
        fxprune.verify(model, small, plan)
