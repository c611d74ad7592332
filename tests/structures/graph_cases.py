"""Graph networks: edges are an index from the input, of which loops are dropped and put in again."""

import torch
from cases import Net, case, param
from torch import nn
from torch.nn import functional as F


def graph(batch):
    """A ring of nodes, two loops and a chord."""
    nodes = 3 + batch
    ring = torch.arange(nodes)
    edges = torch.stack([ring, (ring + 1) % nodes])
    return torch.randn(nodes, 6), torch.cat([edges, torch.tensor([[0, 1, 0], [0, 1, 2]])], 1)


def with_loops(edges, nodes):
    loops = torch.arange(nodes)[None].expand(2, -1)
    return torch.cat([edges[:, edges[0] != edges[1]], loops], 1)


def softmax(scores, target, nodes):
    """Over the edges that arrive at a node."""
    index = target[:, None].expand_as(scores)
    highest = scores.new_full((nodes, scores.size(1)), -1e9).scatter_reduce(0, index, scores, "amax")
    shares = (scores - highest.index_select(0, target)).exp()
    return shares / shares.new_zeros((nodes, scores.size(1))).scatter_add(0, index, shares).index_select(0, target)


def gathered(messages, target, nodes):
    index = target.view(-1, *[1] * (messages.dim() - 1)).expand_as(messages)
    return messages.new_zeros((nodes, *messages.shape[1:])).scatter_add_(0, index, messages)


@case("a", graph)
def graph_convolution():
    """GCN: normalised by degree."""

    def run(m, x, edges):
        nodes = x.size(0)
        source, target = with_loops(edges, nodes)
        degree = torch.zeros(nodes, dtype=x.dtype).index_add(0, target, torch.ones_like(target, dtype=x.dtype))
        scale = (degree ** -0.5)[source] * (degree ** -0.5)[target]
        y = gathered(m.a(x)[source] * scale[:, None], target, nodes)
        return m.head(y.relu())

    return Net(run, a=nn.Linear(6, 10), head=nn.Linear(10, 3))


@case("a", graph)
def graph_attention():
    """GAT: scores from sums over the channels of each head, softmax over edges; heads side by side."""

    def run(m, x, edges):
        nodes = x.size(0)
        source, target = with_loops(edges, nodes)
        if source.numel() == 0:
            return m.head(x)
        y = m.a(x).view(-1, 4, 5)
        scores = (y * m.at_source).sum(-1)[source] + (y * m.at_target).sum(-1)[target]
        shares = softmax(F.leaky_relu(scores, 0.2), target, nodes)
        return m.head(gathered(y[source] * shares.unsqueeze(-1), target, nodes).view(-1, 20).relu())

    return Net(run, a=nn.Linear(6, 20), at_source=param(1, 4, 5), at_target=param(1, 4, 5), head=nn.Linear(20, 3))


@case("q v", graph)
def graph_transformer():
    """TransformerConv: dot products along the edges; a skip connection beside them."""

    def run(m, x, edges):
        nodes = x.size(0)
        source, target = edges[:, edges[0] != edges[1]]
        q, k, v = (layer(x).view(-1, 4, 5) for layer in (m.q, m.k, m.v))
        scores = (q[target] * k[source]).sum(-1) / 5 ** 0.5
        y = gathered(v[source] * softmax(scores, target, nodes).unsqueeze(-1), target, nodes)
        return m.head(y.view(-1, 20) + m.skip(x))

    return Net(run, q=nn.Linear(6, 20), k=nn.Linear(6, 20), v=nn.Linear(6, 20), skip=nn.Linear(6, 20),
               head=nn.Linear(20, 3))
