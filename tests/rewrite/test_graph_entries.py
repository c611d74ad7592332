"""A graph pickles as it is: what a trace of its code would run, or could not follow, stays a call."""

import pickle

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule
from torch.nn import functional as F

import fxprune
from fxprune.rewrite.graph_entries import entries_of, graph_of

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Writes(nn.Module):
    """Writes into what it has made, draws, and calls functions that go by several names."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = F.max_pool2d(self.a(x), 2)
        made = torch.zeros(y.shape[0], 8, 4, 4)
        made[:, :, :2] = y[:, :, :2]
        made += torch.arange(4)
        return self.b(torch.ops.aten.relu.default(made)) + torch.rand(())


def test_a_loaded_result_writes_and_draws_as_before():
    torch.manual_seed(0)
    model = Writes()
    small = fxprune.compress(model, X, channels=0.5)
    again = pickle.loads(pickle.dumps(small))
    assert [str(node) for node in again.graph.nodes] == [str(node) for node in small.graph.nodes]
    assert again.code == small.code
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = small(X)
        torch.manual_seed(seed)
        assert torch.equal(again(X), expected)
    assert not torch.equal(again(X), again(X))


def test_what_is_said_of_nodes_comes_back():
    graph = Graph()
    x = graph.placeholder("x", float)
    out = graph.call_method("view", (x, [-1, slice(None)]), {"size": (x, 2)})
    out.meta |= {"source": "view at net.py:3", "is_wrapped": True, "of a pass": object()}
    graph.output({"a": (out, None)})
    new = graph_of(pickle.loads(pickle.dumps(entries_of(graph))))
    assert [(n.op, n.name, n.target, str(n.args), str(n.kwargs), n.type) for n in new.nodes] == \
        [(n.op, n.name, n.target, str(n.args), str(n.kwargs), n.type) for n in graph.nodes]
    assert [n.meta for n in new.nodes] == [{}, {"source": "view at net.py:3", "is_wrapped": True}, {}]


@pytest.mark.parametrize("target", [torch.ops.aten.add, torch.ops.aten.add.Tensor, F.max_pool2d, F.relu, torch.relu])
def test_a_target_is_the_same_object(target):
    graph = Graph()
    graph.output(graph.call_function(target, (graph.placeholder("x"), 2)))
    assert list(graph_of(pickle.loads(pickle.dumps(entries_of(graph)))).nodes)[1].target is target


def test_what_has_no_name_says_so():
    graph = Graph()
    graph.output(graph.call_function(lambda x: x, (graph.placeholder("x"),)))
    with pytest.raises((AttributeError, pickle.PicklingError), match="<lambda>"):
        pickle.dumps(entries_of(graph))
    assert GraphModule(nn.Module(), graph)(1) == 1
