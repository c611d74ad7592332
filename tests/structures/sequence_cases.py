"""Recurrent nets, embeddings, reparametrised weights."""

import torch
from cases import Net, case, conv, tokens
from reference import KeptOnly
from torch import nn
from torch.nn.utils import parametrizations, parametrize


def _ids(batch):
    return (torch.randint(0, 13, (batch, 6)),)


@case("emb rnn", _ids)
def embedding_and_lstm():
    return Net(lambda m, x: m.head(m.rnn(m.emb(x))[0][:, -1]), emb=nn.Embedding(13, 8),
               rnn=nn.LSTM(8, 6, batch_first=True), head=nn.Linear(6, 3))


@case("stem rnn", tokens())
def stacked_gru():
    return Net(lambda m, x: m.head(m.rnn(m.stem(x))[0]), stem=nn.Linear(10, 7),
               rnn=nn.GRU(7, 5, num_layers=2, batch_first=True), head=nn.Linear(5, 3))


@case("rnn", tokens())
def bidirectional_lstm_and_its_states():
    def run(m, x):
        out, (h, c) = m.rnn(x)
        return m.head(out), m.last(torch.cat([h[0], h[1], c[1]], -1))

    return Net(run, rnn=nn.LSTM(10, 6, batch_first=True, bidirectional=True), head=nn.Linear(12, 3),
               last=nn.Linear(18, 2))


@case("rnn", tokens())
def plain_rnn_sequence_first():
    return Net(lambda m, x: m.head(m.rnn(x.transpose(0, 1))[0].mean(0)), rnn=nn.RNN(10, 6, nonlinearity="relu"),
               head=nn.Linear(6, 3))


@case("rnn rnn#2", tokens())
def projected_lstm():
    return Net(lambda m, x: m.head(m.rnn(x)[0]), rnn=nn.LSTM(10, 8, batch_first=True, proj_size=5),
               head=nn.Linear(5, 3))


@case("cell", tokens(length=3))
def unrolled_gru_cell():
    def run(m, x):
        h = x.new_zeros(x.size(0), 6)
        for t in x.unbind(1):
            h = m.cell(t, h)
        return m.head(h)

    return Net(run, cell=nn.GRUCell(10, 6), head=nn.Linear(6, 3))


@case("cell", tokens(length=3))
def unrolled_lstm_cell():
    def run(m, x):
        state = None
        for t in range(x.shape[1]):
            state = m.cell(x[:, t], state)
        return m.head(state[0] * torch.sigmoid(state[1]))

    return Net(run, cell=nn.LSTMCell(10, 6), head=nn.Linear(6, 3))


@case("emb#2", lambda batch: (torch.randint(0, 13, (batch, 6)),))
def embedding_tied_with_the_output():
    """The language model's head is the transposed table: its columns are the table's."""

    def run(m, x):
        return m.head(m.norm(m.emb(x) + m.fc(m.emb(x))))

    net = Net(run, emb=nn.Embedding(13, 8), fc=nn.Linear(8, 8), norm=nn.LayerNorm(8),
              head=nn.Linear(8, 13, bias=False))
    net.head.weight = net.emb.weight
    return net


class Normed(nn.Module):
    """Weight normalisation over what is kept of the input."""

    def __init__(self, layer, kept):
        super().__init__()
        self.layer = layer
        self.columns = kept

    def forward(self, x):
        p = self.layer.parametrizations.weight
        v = p.original1
        norm = v[:, list(self.columns)].flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
        return nn.functional.conv2d(x, p.original0 * v / norm, self.layer.bias, padding=1)


def _weight_norm(full, kept):
    for name in ("a", "b", "head"):
        layer = getattr(full, name)
        full.add_module(name, Normed(layer, kept(f"{name}.parametrizations.weight.original1", 1)))


@case("a.parametrizations.weight.original1 b.parametrizations.weight.original1", patch=_weight_norm,
      skip={f"{n}.parametrizations.weight.original1": (0,) for n in "ab"})
def weight_norm_parametrization():
    return Net(lambda m, x: m.head(m.b(m.a(x).relu()).relu()), a=parametrizations.weight_norm(conv(3, 8)),
               b=parametrizations.weight_norm(conv(8, 6)), head=parametrizations.weight_norm(conv(6, 2)))


class Doubled(nn.Module):
    def forward(self, w):
        return w + w.tanh()


@case("a.parametrizations.weight.original")
def pointwise_parametrization():
    net = Net(lambda m, x: m.head(m.a(x).relu()), a=conv(3, 8), head=conv(8, 2))
    parametrize.register_parametrization(net.a, "weight", Doubled())
    return net


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=-1, keepdim=True)


def _kept_mean(full, kept):
    full.mean = KeptOnly(lambda x: x.mean(-1, keepdim=True), -1, kept("up.weight", 0))


@case("up", tokens(), patch=_kept_mean)
def statistics_of_kept_tokens_features():
    """A mean over features, written as a method with a keyword."""

    def run(m, x):
        y = m.up(x).sigmoid()
        return m.head(y) * m.mean(y)

    return Net(run, up=nn.Linear(10, 8), mean=Mean(), head=nn.Linear(8, 3))
