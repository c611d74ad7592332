"""What models do besides computing: contexts, state that they write, tensors that nobody registered, hooks of old."""

import numpy as np
import torch
from cases import Net, case, conv, image, param, tokens
from reference import KeptOnly
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


@case("a")
def parts_without_gradients():
    """What runs under ``no_grad`` gives its weights no gradient in the result either."""

    def run(m, x):
        with torch.no_grad():
            y = m.a(x)
            with torch.enable_grad():
                z = m.b(y)
        return m.head(z + y.detach().repeat(1, 1, 1, 1)[:, :6])

    return Net(run, a=conv(3, 6), b=conv(6, 6), head=conv(6, 2))


@case("a")
def running_mean_written_in_place():
    def run(m, x):
        y = m.a(x)
        if m.training:
            with torch.no_grad():
                m.average.mul_(0.9).add_(0.1 * y.mean((0, 2, 3)))
        return m.head(y - m.average[None, :, None, None])

    return Net(run, a=conv(3, 8), average=torch.zeros(8), head=conv(8, 2))


@case("a")
def running_mean_assigned():
    """A buffer that forward replaces: the result writes into its own."""

    def run(m, x):
        y = m.a(x)
        if m.training:
            m.average = 0.9 * m.average + 0.1 * y.detach().mean((0, 2, 3))
        return m.head(y - m.average[None, :, None, None])

    return Net(run, a=conv(3, 8), average=torch.zeros(8), head=conv(8, 2))


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head, self.masks, self.calls = conv(3, 8), conv(8, 2), {}, 0

    def forward(self, x):
        self.calls += 1
        key = tuple(x.shape[2:])
        if key not in self.masks:
            self.masks[key] = torch.tril(torch.ones(*key, dtype=x.dtype, device=x.device))
        self.last = self.a(x)
        return self.head(self.last * self.masks[key])


@case("a")
def tensors_cached_on_the_module():
    return Cached()


@case("a b.0 c.0")
def activation_checkpointing():
    def run(m, x):
        y = checkpoint(m.b, m.a(x), use_reentrant=False)
        return m.head(checkpoint(m.c, y, use_reentrant=True))

    return Net(run, a=conv(3, 8), b=nn.Sequential(conv(8, 6), nn.Tanh()), c=nn.Sequential(conv(6, 6)),
               head=conv(6, 2))


@case("a")
def constants_that_nobody_registered():
    net = Net(lambda m, x: m.head(m.a(x) * m.lists[0])[:, m.lists[1]], a=conv(3, 8), head=conv(8, 2))
    net.lists = [torch.rand(8, 1, 1, dtype=torch.float64).add(0.5).float(), torch.tensor([1, 0])]
    return net


@case("a")
def constants_that_differ_by_mode():
    net = Net(lambda m, x: m.head(m.a(x) * (m.lists[0] if m.training else m.lists[1])), a=conv(3, 8), head=conv(8, 2))
    net.lists = [torch.tensor(2.0), torch.tensor(3.0)]
    return net


@case("a")
def constants_from_numpy():
    grid = np.arange(36, dtype="float32").reshape(6, 6)
    return Net(lambda m, x: m.head(m.a(x) + torch.from_numpy(grid).to(x)), a=conv(3, 8), head=conv(8, 2))


@case("a a#2")
def boolean_index():
    keep = torch.tensor([True, False, True, True, False, True])
    return Net(lambda m, x: m.head(m.a(x)[:, m.mask]) + m.head(m.a(x)[:, [True, False, True, True, False, True]]),
               a=conv(3, 6), mask=keep, head=conv(4, 2))


@case("a", renumbered=("order",))
def index_buffer_read_twice():
    def run(m, x):
        return m.head(torch.cat([m.a(x)[:, m.order], m.b(x)[:, m.order]], 1))

    return Net(run, a=conv(3, 8), b=conv(3, 8), order=torch.tensor([3, 1, 0, 2, 7, 5, 6, 4]), head=conv(16, 2))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad * weight, (grad * x).sum((0, 2, 3), keepdim=True)


@case("a")
def autograd_function_of_a_parameter():
    return Net(lambda m, x: m.head(Scaled.apply(m.a(x), m.scale)), a=conv(3, 8), scale=param(1, 8, 1, 1),
               head=conv(8, 2))


@case("a", skip={"a.weight_v": (0,)})
def weight_norm_by_hooks():
    return Net(lambda m, x: m.head(m.a(x).relu()), a=torch.nn.utils.weight_norm(conv(3, 8)), head=conv(8, 2))


@case("a")
def spectral_norm_by_hooks():
    return Net(lambda m, x: m.head(m.a(x).relu()), a=torch.nn.utils.spectral_norm(conv(3, 8)), head=conv(8, 2))


@case("a.parametrizations.weight.original")
def spectral_norm_parametrization():
    return Net(lambda m, x: m.head(m.a(x).relu()), a=torch.nn.utils.parametrizations.spectral_norm(conv(3, 8)),
               head=conv(8, 2))


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0] * 2


def _triple(module, args, output):
    return output * 3


@case("stem attn.in_proj_weight attn.in_proj_weight#2 attn.out_proj", tokens())
def subclass_of_multihead_attention_with_a_hook():
    net = Net(lambda m, x: m.head(m.attn(m.stem(x))), stem=nn.Linear(10, 8),
              attn=SelfAttention(8, 2, batch_first=True), head=nn.Linear(8, 2))
    net.attn.register_forward_hook(_triple)
    return net


@case("stem q v c")
def attention_pooling_by_the_functional_form():
    """CLIP's: ``F.multi_head_attention_forward`` over weights of one's own."""

    def run(m, x):
        x = m.stem(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x], 0) + m.position[:, None, :].to(x.dtype)
        y, _ = F.multi_head_attention_forward(
            query=x[:1], key=x, value=x, embed_dim_to_check=x.shape[-1], num_heads=2, in_proj_weight=None,
            in_proj_bias=torch.cat([m.q.bias, m.k.bias, m.v.bias]), bias_k=None, bias_v=None, add_zero_attn=False,
            dropout_p=0.0, out_proj_weight=m.c.weight, out_proj_bias=m.c.bias, training=m.training, need_weights=False,
            use_separate_proj_weight=True, q_proj_weight=m.q.weight, k_proj_weight=m.k.weight, v_proj_weight=m.v.weight)
        return m.head(y.squeeze(0))

    return Net(run, stem=conv(3, 8), position=param(37, 8), q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8),
               c=nn.Linear(8, 6), head=nn.Linear(6, 2))


class MeanLast(nn.Module):
    def forward(self, x):
        return x.mean(dim=-1, keepdim=True)


def _kept_mean(full, kept):
    full.mean = KeptOnly(lambda x: x.mean(-1, keepdim=True), -1, kept("a.weight", 0))


@case("a", patch=_kept_mean)
def global_response_normalisation():
    def run(m, x):
        y = m.a(x).permute(0, 2, 3, 1)
        norm = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        return m.head(m.gamma * (y * (norm / (m.mean(norm) + 1e-6))) + m.beta + y)

    return Net(run, a=conv(3, 8), mean=MeanLast(), gamma=param(1, 1, 1, 8), beta=param(1, 1, 1, 8),
               head=nn.Linear(8, 2))


@case("a")
def blur_pooling():
    """A depthwise kernel in a buffer, and as many groups as there are channels."""

    def run(m, x):
        y = m.a(x)
        return m.head(F.conv2d(F.pad(y, (1, 1, 1, 1), "reflect"), m.kernel, stride=2, groups=y.shape[1]))

    return Net(run, a=conv(3, 8), kernel=torch.full((8, 1, 3, 3), 1 / 9), head=conv(8, 2))


@case("a")
def dynamic_convolution():
    """A kernel for every sample: the batch lies in the groups, and the mixed kernel is a product."""

    def run(m, x):
        y = m.a(x)
        b, c, h, w = y.shape
        mix = m.mix(y.mean((2, 3))).softmax(1)
        weight = (mix @ m.kernels.view(4, -1)).view(b * 6, c, 3, 3)
        return m.head(F.conv2d(y.reshape(1, b * c, h, w), weight, padding=1, groups=b).view(b, 6, h, w))

    return Net(run, a=conv(3, 8), mix=nn.Linear(8, 4), kernels=param(4, 6 * 8 * 9), head=conv(6, 2))


@case("a c b", lambda batch: (torch.randn(batch, 3), torch.randn(batch, 3)))
def bilinear_layer():
    return Net(lambda m, x, y: m.head(m.b(m.a(x), m.c(y))), a=nn.Linear(3, 8), c=nn.Linear(3, 6),
               b=nn.Bilinear(8, 6, 5), head=nn.Linear(5, 2))


@case("a")
def norm_over_channels():
    return Net(lambda m, x: m.head(F.normalize(m.a(x), dim=1)), a=conv(3, 8), head=conv(8, 2))


@case("")
def refused_by_name():
    """Softmax over channels, a local response norm, memory by strides: nothing goes."""

    def run(m, x):
        y = m.a(x).softmax(1) + m.norm(m.b(x))
        return m.head(torch.as_strided(y * m.c(x), (2, 8, 6, 6), (288, 36, 6, 1)))

    return Net(run, a=conv(3, 8), b=conv(3, 8), c=conv(3, 8), norm=nn.LocalResponseNorm(3), head=conv(8, 2))


@case("a", image(size=4))
def batch_of_one_and_squeezes():
    def run(m, x):
        y = F.adaptive_avg_pool2d(m.a(x), 1).squeeze(-1).squeeze(-1)
        return m.head(y.unsqueeze(1).squeeze(1))

    return Net(run, a=conv(3, 8), head=nn.Linear(8, 2))
