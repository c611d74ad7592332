"""Attention in all of its spellings, and the blocks around it."""

import math

import torch
from cases import Net, case, param, tokens
from torch import nn
from torch.nn import functional as F

from fxprune.ir.policy import Policy

WHOLE = Policy(heads="whole")


def _by_hand(m, x):
    """As in timm: one projection, unbound, the scale from the head size."""
    b, n, c = x.shape
    qkv = m.qkv(x).reshape(b, n, 3, 4, 6).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    attn = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    y = (attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, -1)
    return m.proj(y)


@case("qkv", tokens())
def attention_by_hand():
    return Net(_by_hand, qkv=nn.Linear(10, 72), proj=nn.Linear(24, 3))


@case("qkv", tokens(), policy=WHOLE)
def attention_by_hand_whole_heads():
    return Net(_by_hand, qkv=nn.Linear(10, 72), proj=nn.Linear(24, 3))


def _separate(m, x):
    b, n, _ = x.size()
    q = m.q(x).view(b, n, 4, -1).transpose(1, 2)
    k = m.k(x).view(b, n, 4, 5).permute(0, 2, 3, 1)
    v = m.v(x).view(b, -1, 4, 3).transpose(1, 2)
    attn = torch.softmax(torch.matmul(q, k) / math.sqrt(q.size(-1)), -1)
    return m.o(torch.matmul(attn, v).permute(0, 2, 1, 3).contiguous().view(b, n, 12))


@case("q v", tokens())
def attention_of_separate_projections():
    return Net(_separate, q=nn.Linear(10, 20), k=nn.Linear(10, 20), v=nn.Linear(10, 12), o=nn.Linear(12, 3))


@case("q", tokens(), policy=WHOLE)
def attention_of_separate_projections_whole_heads():
    return Net(_separate, q=nn.Linear(10, 20), k=nn.Linear(10, 20), v=nn.Linear(10, 12), o=nn.Linear(12, 3))


@case("qkv qkv#2", tokens())
def scaled_dot_product_attention():
    """Its scale stays that of the original head size."""

    def run(m, x):
        q, k, v = m.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (2, 6)).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return m.proj(y.transpose(1, 2).flatten(2))

    return Net(run, qkv=nn.Linear(10, 36), proj=nn.Linear(12, 3))


@case("q k", tokens())
def attention_written_as_einsum():
    def run(m, x):
        q, k, v = (f(x).view(*x.shape[:2], 2, 7) for f in (m.q, m.q2, m.k))
        attn = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(7 ** -0.5).softmax(-1)
        return m.o(torch.einsum("bhqk,bkhd->bqhd", attn, v).flatten(2))

    return Net(run, q=nn.Linear(10, 14), q2=nn.Linear(10, 14), k=nn.Linear(10, 14), o=nn.Linear(14, 3))


@case("stem k v", tokens())
def linear_attention():
    """No softmax over keys: keys meet values first."""

    def run(m, x):
        x = m.stem(x)
        context = m.k(x).softmax(1).transpose(1, 2) @ m.v(x)
        return m.o(m.q(x) @ context)

    return Net(run, stem=nn.Linear(10, 8), q=nn.Linear(8, 6), k=nn.Linear(8, 6), v=nn.Linear(8, 5), o=nn.Linear(5, 3))


@case("emb attn.in_proj_weight attn.in_proj_weight#2 mlp.0", lambda batch: (torch.randint(0, 11, (batch, 5)),))
def pre_norm_transformer_block():
    def run(m, x):
        x = m.emb(x)
        y = m.n1(x)
        x = x + m.attn(y, y, y, need_weights=False)[0]
        return m.head(m.n3(x + m.mlp(m.n2(x))))

    return Net(run, emb=nn.Embedding(11, 8), n1=nn.LayerNorm(8), attn=nn.MultiheadAttention(8, 2, batch_first=True),
               n2=nn.LayerNorm(8), mlp=nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
               n3=nn.LayerNorm(8), head=nn.Linear(8, 3))


def _mha(prunable, name, run, inputs=None, stem=True, **options):
    def build():
        parts = {"stem": nn.Linear(10, 12)} if stem else {}
        return Net(run, **parts, attn=nn.MultiheadAttention(12, 3, **options), head=nn.Linear(12, 3))

    build.__name__ = f"multihead_attention_{name}"
    case(prunable, inputs or tokens())(build)


def _self(m, x):
    y = m.stem(x)
    return m.head(m.attn(y, y, y)[0])


def _with_weights(m, x):
    y = m.stem(x)
    out, weights = m.attn(y, y, y, average_attn_weights=False)
    return m.head(out), weights


def _masked(m, x):
    y = m.stem(x)
    length = y.shape[1]
    causal = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    padding = torch.zeros(y.shape[0], length, dtype=torch.bool)
    return m.head(m.attn(y, y, y, key_padding_mask=padding, attn_mask=causal, need_weights=False)[0])


def _cross(m, query, memory):
    y, z = m.stem(query), torch.tanh(memory)
    return m.head(m.attn(y, z, z, need_weights=True)[0])


def _unlike(m, query, key, value):
    return m.head(m.attn(m.stem(query), key, value)[0])


def _sequence_first(m, x):
    y = m.stem(x).transpose(0, 1)
    return m.head(m.attn(y, y, y)[0].transpose(0, 1).relu())


def _cross_inputs(batch):
    return torch.randn(batch, 5, 10), torch.randn(batch, 4, 12)


def _unlike_inputs(batch):
    return torch.randn(batch, 5, 10), torch.randn(batch, 4, 7), torch.randn(batch, 4, 9)


PARTS = "stem attn.in_proj_weight attn.in_proj_weight#2 attn.out_proj"
_mha(PARTS, "batch_first", _self, batch_first=True)
_mha(PARTS, "sequence_first", _sequence_first)
_mha(PARTS, "without_bias", _self, batch_first=True, bias=False)
_mha(PARTS, "returning_weights", _with_weights, batch_first=True)
_mha(PARTS, "with_masks", _masked, batch_first=True)
_mha(PARTS, "with_learned_and_zero_positions", _self, batch_first=True, add_bias_kv=True, add_zero_attn=True)
_mha(PARTS.removeprefix("stem "), "across_inputs", _cross, _cross_inputs, batch_first=True)
_mha("stem attn.q_proj_weight attn.v_proj_weight attn.out_proj", "of_unlike_widths", _unlike, _unlike_inputs,
     batch_first=True, kdim=7, vdim=9)


_INNER = ("encoder.layers.0.self_attn", "encoder.layers.0.linear1", "encoder.layers.1.self_attn",
          "encoder.layers.1.linear1", "decoder.self_attn", "decoder.multihead_attn", "decoder.linear1")
_NAMES = [f"{n}.in_proj_weight {n}.in_proj_weight#2" if n.endswith("attn") else n for n in _INNER]


@case(" ".join(["emb", *_NAMES]), tokens(12))
def transformer_encoder_and_decoder_layers():
    def run(m, x):
        y = m.emb(x)
        memory = m.encoder(y, is_causal=False)
        return m.head(m.decoder(y, memory))

    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    return Net(run, emb=nn.Linear(12, 8), encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
               decoder=nn.TransformerDecoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True),
               head=nn.Linear(8, 3))


@case("wq wv", tokens())
def grouped_query_attention_with_rotary_embedding():
    """Llama: rotated pairs of components go together; key heads are repeated by expand and reshape."""

    def rotate(t, cos, sin):
        half = t.shape[-1] // 2
        return t * cos + torch.cat((-t[..., half:], t[..., :half]), -1) * sin

    def run(m, x):
        b, n, _ = x.shape
        q = m.wq(x).view(b, n, 4, 6).transpose(1, 2)
        k, v = (w(x).view(b, n, 2, 6).transpose(1, 2) for w in (m.wk, m.wv))
        angle = torch.arange(n)[:, None] * m.freq[None]
        angle = torch.cat((angle, angle), -1)
        q, k = rotate(q, angle.cos(), angle.sin()), rotate(k, angle.cos(), angle.sin())
        k, v = (t[:, :, None].expand(b, 2, 2, n, 6).reshape(b, 4, n, 6) for t in (k, v))
        return m.wo(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))

    return Net(run, wq=nn.Linear(10, 24, bias=False), wk=nn.Linear(10, 12, bias=False),
               wv=nn.Linear(10, 12, bias=False), wo=nn.Linear(24, 3, bias=False), freq=torch.rand(3))


def rotated_attention(rotate, freqs):
    """Attention of 4 heads of 8, in which queries and keys are turned by an angle for each position."""

    def run(m, x):
        b, n, _ = x.shape
        q, k, v = (w(x).view(b, n, 4, 8) for w in (m.wq, m.wk, m.wv))
        q, k = rotate(q, freqs[:n]), rotate(k, freqs[:n])
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return m.wo(y.transpose(1, 2).reshape(b, n, -1))

    return Net(run, wq=nn.Linear(10, 32), wk=nn.Linear(10, 32), wv=nn.Linear(10, 32), wo=nn.Linear(32, 3))


ANGLES = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.5, 0.25, 0.125]))


@case("wq wv", tokens())
def rotary_embedding_by_complex_numbers():
    """Llama's reference: neighbouring components are a complex number, turned by a table that is no buffer."""

    def rotate(t, freqs):
        pairs = torch.view_as_complex(t.reshape(*t.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * freqs.to(pairs.dtype)[None, :, None]).flatten(3)

    return rotated_attention(rotate, torch.polar(torch.ones_like(ANGLES), ANGLES))


@case("wq wv", tokens())
def interleaved_rotary_embedding():
    """GPT-J: even and odd components, turned, stacked and flattened."""

    def rotate(t, angles):
        turned = torch.stack((-t[..., 1::2], t[..., ::2]), -1).flatten(-2)
        cos, sin = (f(angles).repeat_interleave(2, -1)[None, :, None].to(t.dtype) for f in (torch.cos, torch.sin))
        return t * cos + turned * sin

    return rotated_attention(rotate, ANGLES)


@case("wq wv", tokens())
def rotary_embedding_of_unbound_pairs():
    """The same, by a split into pairs that are unbound."""

    def rotate(t, angles):
        even, odd = t.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = (f(angles)[None, :, None].to(t.dtype) for f in (torch.cos, torch.sin))
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    return rotated_attention(rotate, ANGLES)


@case("up down", tokens())
def swiglu_with_rms_norm():
    def run(m, x):
        gate, value = m.up(x).chunk(2, -1)
        return m.head(m.norm(m.down(F.silu(gate) * value)))

    return Net(run, up=nn.Linear(10, 24), down=nn.Linear(12, 8), norm=nn.RMSNorm(8), head=nn.Linear(8, 3))


@case("embed qkv proj", lambda batch: (torch.randn(batch, 4, 4, 5),), policy=WHOLE)
def heads_beside_windows_in_one_dimension():
    """Batch, windows and heads share a dimension, whose length for a single picture follows from weights alone."""

    def run(m, x):
        y = (m.embed(x) + m.positions).reshape(-1, 4, 8)
        windows = y.shape[0]
        qkv = m.qkv(y).reshape(windows, 4, 3, 4, 3).permute(2, 0, 3, 1, 4).reshape(3, windows * 4, 4, -1)
        q, k, v = qkv.unbind(0)
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        y = y.reshape(windows, 4, 4, -1).permute(0, 2, 1, 3).reshape(windows, 4, -1)
        return m.head(m.proj(y))

    return Net(run, embed=nn.Linear(5, 8), positions=param(1, 4, 4, 8), qkv=nn.Linear(8, 36), proj=nn.Linear(12, 6),
               head=nn.Linear(6, 2))


@case("qkv qkv#2", tokens())
def attention_with_a_bias_per_head():
    """A buffer per head (ALiBi) arrives where heads are merged: it is no channel, and the size of a head is one."""

    def run(m, x):
        b, n, _ = x.shape
        q, k, v = (t.view(b, n, 4, 4).transpose(1, 2) for t in m.qkv(x).chunk(3, -1))
        apart = (torch.arange(n)[None] - torch.arange(n)[:, None]).clamp(max=0)
        attn = q @ k.mT / 2 + apart * m.slopes[:, None, None]
        return m.o((attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, 16))

    net = Net(run, qkv=nn.Linear(10, 48), o=nn.Linear(16, 3))
    net.register_buffer("slopes", 2.0 ** -torch.arange(1, 5))
    return net
