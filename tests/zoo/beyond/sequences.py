"""Sequences: recurrent nets, temporal convolutions, WaveNet, an acoustic CRNN, MLP-Mixer over time."""

import torch
from torch import nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    """An embedding, recurrent layers, a head."""

    def __init__(self, kind: type[nn.RNNBase], **options):
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.rnn = kind(24, 20, batch_first=True, **options)
        self.norm = nn.LayerNorm(20 * (2 if options.get("bidirectional") else 1))
        self.head = nn.Linear(self.norm.normalized_shape[0], 10)

    def forward(self, tokens):
        return self.head(self.norm(self.rnn(self.embedding(tokens))[0]))


class Seq2Seq(nn.Module):
    """An encoder GRU whose state starts a decoder GRU."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(40, 16), nn.Embedding(30, 16)
        self.encoder, self.decoder = nn.GRU(16, 24, batch_first=True), nn.GRU(16, 24, batch_first=True)
        self.head = nn.Linear(24, 30)

    def forward(self, source, target):
        _, state = self.encoder(self.source(source))
        out, _ = self.decoder(self.target(target), state)
        return self.head(out)


class Causal(nn.Module):
    """A residual block of causal, dilated, weight-normalised convolutions."""

    def __init__(self, a: int, b: int, dilation: int):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.pad = 2 * dilation
        self.c1, self.c2 = (norm(nn.Conv1d(w, b, 3, padding=self.pad, dilation=dilation)) for w in (a, b))
        self.skip = nn.Conv1d(a, b, 1) if a != b else None

    def forward(self, x):
        h = F.relu(self.c1(x)[:, :, :-self.pad].contiguous())
        h = F.relu(self.c2(h)[:, :, :-self.pad])
        return F.relu(h + (x if self.skip is None else self.skip(x)))


class WaveNet(nn.Module):
    """Gated residual blocks, all of whose skips are summed up."""

    def __init__(self, width: int = 16, layers: int = 4):
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2 ** i) for i in range(layers))
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skip = nn.ModuleList(nn.Conv1d(width, 24, 1) for _ in range(layers))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 32, 1), nn.ReLU(), nn.Conv1d(32, 64, 1))

    def forward(self, x):
        x, total = self.first(x), 0
        for i, layer in enumerate(self.dilated):
            a, b = layer(F.pad(x, (2 ** i, 0))).chunk(2, 1)
            h = a.tanh() * b.sigmoid()
            total = total + self.skip[i](h)
            x = x + self.residual[i](h)
        return self.last(total)


class CRNN(nn.Module):
    """Convolutions over a spectrogram, flattened per time step into a bidirectional LSTM."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, (2, 1), 1), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 16, 3, (2, 1), 1), nn.BatchNorm2d(16), nn.ReLU())
        self.rnn = nn.LSTM(16 * 4, 24, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 12)

    def forward(self, x):
        x = self.conv(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(x)[0]).log_softmax(-1)


TOKENS = (torch.arange(14).reshape(2, 7) % 30,)


def recurrent(kind: type[nn.RNNBase], **options):
    return lambda: (Recurrent(kind, **options), TOKENS)


CASES = {
    "lstm": recurrent(nn.LSTM),
    "lstm_two_layers_bidirectional": recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "gru": recurrent(nn.GRU, num_layers=2),
    "gru_bidirectional": recurrent(nn.GRU, bidirectional=True),
    "rnn": recurrent(nn.RNN),
    "seq2seq_gru": lambda: (Seq2Seq(), (*TOKENS, TOKENS[0][:, :5])),
    "tcn": lambda: (nn.Sequential(Causal(4, 16, 1), Causal(16, 16, 2), Causal(16, 24, 4), nn.Conv1d(24, 5, 1)),
                    (torch.rand(2, 4, 32),)),
    "wavenet": lambda: (WaveNet(), (torch.rand(2, 1, 40),)),
    "crnn": lambda: (CRNN(), (torch.rand(2, 1, 16, 20),)),
}
