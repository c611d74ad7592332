"""Transformers written by hand or by ``torch.nn``."""

import torch
from torch import nn
from torch.nn import functional as F


class Llama(nn.Module):
    """RMSNorm, rotary embeddings, grouped-query attention, SwiGLU, tied embeddings."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int = 2, layers: int = 2, vocabulary: int = 64):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Block(width, heads, shared) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, shared: int):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.n1, self.n2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def rotate(self, x):
        steps = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
        rates = 10000 ** (-torch.arange(0, self.size, 2, device=x.device, dtype=x.dtype) / self.size)
        angles = torch.outer(steps, rates).repeat(1, 2)
        a, b = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    def forward(self, x):
        b, n, c = x.shape
        h = self.n1(x)
        q = self.rotate(self.q(h).view(b, n, self.heads, self.size).transpose(1, 2))
        k = self.rotate(self.k(h).view(b, n, self.shared, self.size).transpose(1, 2))
        v = self.v(h).view(b, n, self.shared, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.shared, 1) for t in (k, v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(h.transpose(1, 2).reshape(b, n, c))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class GPT(nn.Module):
    """Learned positions, a causal mask in a buffer, attention spelled out."""

    def __init__(self, width: int = 24, heads: int = 3, layers: int = 2, length: int = 16):
        super().__init__()
        self.heads = heads
        self.token, self.place = nn.Embedding(50, width), nn.Embedding(length, width)
        self.qkv, self.out = (nn.ModuleList(nn.Linear(width, k * width) for _ in range(layers)) for k in (3, 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.mlp = nn.ModuleList(nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
                                 for _ in range(layers))
        self.head = nn.Linear(width, 50, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, tokens):
        b, n = tokens.size()
        x = self.token(tokens) + self.place(torch.arange(n, device=tokens.device))
        for i, (qkv, out, mlp) in enumerate(zip(self.qkv, self.out, self.mlp, strict=True)):
            c = x.size(-1)
            q, k, v = (t.view(b, n, self.heads, c // self.heads).transpose(1, 2)
                       for t in qkv(self.norms[2 * i](x)).split(c, dim=2))
            weights = (q @ k.transpose(-2, -1)) * k.size(-1) ** -0.5
            weights = weights.masked_fill(self.mask[:, :, :n, :n] == 0, float("-inf")).softmax(-1)
            x = x + out((weights @ v).transpose(1, 2).contiguous().view(b, n, c))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x))


class Wrapped(nn.Module):
    """``nn.Transformer`` between embeddings and a head."""

    def __init__(self, **options):
        super().__init__()
        self.source, self.target = nn.Linear(6, 16), nn.Linear(6, 16)
        self.body = nn.Transformer(16, 2, 2, 2, 32, batch_first=True, **options)
        self.head = nn.Linear(16, 5)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        return self.head(self.body(self.source(source), self.target(target), tgt_mask=mask))


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
    return nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                         nn.Linear(16, 5))


TOKENS = (torch.arange(14).reshape(2, 7) % 30,)
CASES = {
    "llama_block": lambda: (Llama(), TOKENS),
    "gpt": lambda: (GPT(), TOKENS),
    "nn_transformer": lambda: (Wrapped(dropout=0.1), (torch.rand(2, 7, 6), torch.rand(2, 5, 6))),
    "nn_transformer_pre_norm": lambda: (Wrapped(norm_first=True), (torch.rand(2, 7, 6), torch.rand(2, 5, 6))),
    "nn_transformer_encoder": lambda: (encoder(), (torch.rand(2, 7, 6),)),
}
