"""What Python around the operators does: sharing, inputs and outputs, modes, hooks, writing in place."""

from collections import namedtuple
from dataclasses import dataclass

import torch
from cases import Net, case, conv, image, param, tokens
from torch import nn
from torch.nn import functional as F


@case("a")
def module_called_twice():
    return Net(lambda m, x: m.head(m.b(m.b(m.a(x)).relu())), a=conv(3, 8), b=conv(8, 8), head=conv(8, 2))


@case("a b c")
def parameterless_module_at_several_widths():
    """One flatten-and-norm-free module serves several widths; so does one module under two names."""

    def run(m, x):
        u, v = m.flat(m.pool(m.a(x))), m.flat(m.pool(m.c(m.act(m.b(x)))))
        return m.h1(u) + m.h2(m.act2(v))

    act = nn.ReLU()
    return Net(run, a=conv(3, 8), b=conv(3, 6), c=conv(6, 4), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
               act=act, act2=act, h1=nn.Linear(8, 2), h2=nn.Linear(4, 2))


@case("a b")
def norm_without_weights_at_two_widths():
    norm = nn.BatchNorm2d(8, affine=False, track_running_stats=False)
    return Net(lambda m, x: m.head(m.norm(m.b(m.norm(m.a(x))))), a=conv(3, 8), b=conv(8, 8), norm=norm,
               head=conv(8, 2))


@case("a")
def tied_weights():
    def run(m, x):
        y = m.a(x)
        y = m.c(m.b(y).relu())
        return m.head(y)

    net = Net(run, a=conv(3, 8), b=conv(8, 8, bias=False), c=conv(8, 8, bias=False), head=conv(8, 2))
    net.c.weight = net.b.weight
    return net


@case("w v")
def plain_parameters():
    def run(m, x):
        y = F.conv2d(x, m.w, m.b, padding=1)
        y = y * m.scale.view(1, -1, 1, 1) + m.shift[None, :, None, None]
        y = F.batch_norm(y, m.running_mean, m.running_var, training=m.training)
        y = torch.flatten(F.adaptive_avg_pool2d(y, 1), 1)
        return torch.addmm(m.c, y.matmul(m.v.t()).relu(), m.h)

    return Net(run, w=param(8, 3, 3, 3), b=param(8), scale=param(8), shift=param(8), running_mean=torch.zeros(8),
               running_var=torch.ones(8), v=param(6, 8), c=param(2), h=param(6, 2))


def _two(batch):
    return torch.randn(batch, 3, 6, 6), torch.randn(batch, 2, 6, 6)


@case("a", _two)
def several_inputs_and_outputs():
    def run(m, x, y):
        z = m.a(x) + m.b(y)
        return m.h1(z), [m.h2(z.relu()), {"x": x}]

    return Net(run, a=conv(3, 8), b=conv(2, 8), h1=conv(8, 2), h2=conv(8, 3))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = conv(3, 8), conv(8, 2)

    def forward(self, x, *, scale=None, flip: bool = False):
        y = self.a(x)
        y = y if scale is None else y * scale
        return {"out": self.head(y.flip(1) if flip else y), "scale": scale}


@case("a", lambda batch: {"x": torch.randn(batch, 3, 6, 6), "scale": torch.rand(batch, 1, 6, 6), "flip": True})
def keyword_inputs_and_dict_outputs():
    return Keywords()


Pair = namedtuple("Pair", "logits features")


@dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple


@case("a")
def namedtuple_output():
    return Net(lambda m, x: Pair(m.head(m.a(x)), m.other(m.a(x))), a=conv(3, 8), head=conv(8, 2), other=conv(8, 2))


@case("a")
def dataclass_output():
    def run(m, x):
        y = m.a(x)
        return Output(logits=m.head(y), hidden=(m.head(y.relu()), None))

    return Net(run, a=conv(3, 8), head=conv(8, 2))


@case("a", lambda batch: ({"image": torch.randn(batch, 3, 6, 6), "rest": [torch.randn(batch, 2, 6, 6)]},))
def nested_inputs():
    return Net(lambda m, x: m.head(m.a(x["image"]) + m.b(x["rest"][0])), a=conv(3, 8), b=conv(2, 8), head=conv(8, 2))


@case("a")
def branch_whose_output_is_unused():
    def run(m, x):
        y = m.a(x)
        m.aux(y)
        m.b(y)
        return m.head(y)

    return Net(run, a=conv(3, 8), b=conv(8, 8), aux=conv(8, 5), head=conv(8, 2))


@case("a")
def in_place_operators():
    def run(m, x):
        y = F.relu(m.a(x), inplace=True)
        z = m.b(y)
        z += y
        z.mul_(2).add_(1)
        z *= 3
        return m.head(z.clamp_(max=4) + torch.relu_(m.a(x) * 2))

    return Net(run, a=conv(3, 8), b=conv(8, 8), head=conv(8, 2))


@case("a a#2 a#3 a#4")
def in_place_add_to_a_view():
    """The slice that is written into belongs to the tensor that is read later."""

    def run(m, x):
        y = m.a(x)
        y[:, :3] += 1
        y[:, 3:5] = y[:, 5:7] * 2
        half = y[:, 8:]
        half.mul_(-1)
        return m.head(y)

    return Net(run, a=conv(3, 10), head=conv(10, 2))


@case("a b")
def filling_a_tensor_by_setitem():
    def run(m, x):
        y = m.a(x)
        out = y.new_zeros(y.shape[0], 14, 6, 6)
        out[:, :8] = y
        out[:, 8:] = m.b(x)
        return m.head(out)

    return Net(run, a=conv(3, 8), b=conv(3, 6), head=conv(14, 2))


@case("a b")
def one_operator_in_three_spellings():
    """Functions, methods and modules of the same operators."""

    def run(m, x):
        y = m.act(m.a(x)).flatten(2).permute(0, 2, 1)
        y = torch.permute(torch.flatten(torch.relu(m.a(x)), 2), (0, 2, 1)).add(y).sub(F.relu(y))
        y = m.norm(y)
        z = F.linear(y, m.b.weight, m.b.bias) + m.b(y) + y @ m.b.weight.T
        return m.head(F.dropout(z.sigmoid(), 0.5, False) * torch.sigmoid(z))

    return Net(run, a=conv(3, 8), act=nn.ReLU(), norm=nn.LayerNorm(8), b=nn.Linear(8, 6), head=nn.Linear(6, 2))


@case("stem b")
def training_and_evaluation_differ():
    """An auxiliary head in training, a block that is skipped, statistics that depend on the mode."""

    def run(m, x):
        y = m.norm(m.stem(x))
        if m.training:
            y = y + m.a(y)
            return m.head(m.b(y)), m.aux(y)
        return m.head(m.b(y.relu()))

    return Net(run, stem=conv(3, 8), norm=nn.BatchNorm2d(8), a=conv(8, 8), b=conv(8, 6), aux=conv(8, 2),
               head=conv(6, 2))


@case("a", modes=("eval",))
def dropout_and_drop_path():
    def run(m, x):
        y = m.drop(m.a(x))
        z = m.b(y)
        if m.training:
            z = z * torch.bernoulli(torch.full((x.shape[0], 1, 1, 1), 0.5)) / 0.5
        return m.head(F.dropout2d(y + z, 0.1, m.training))

    return Net(run, a=conv(3, 8), drop=nn.Dropout(0.3), b=conv(8, 8), head=conv(8, 2))


def _double(module, args, output):
    return output * 2


def _shift(module, args):
    return (args[0] + 1,)


@case("a b.0")
def hooks_on_modules():
    net = Net(lambda m, x: m.head(m.b(m.a(x))), a=conv(3, 8), b=nn.Sequential(conv(8, 6), nn.ReLU()), head=conv(6, 2))
    net.a.register_forward_hook(_double)
    net.b.register_forward_pre_hook(_shift)
    net.b.register_forward_hook(_double)
    net.register_forward_hook(_double)
    net.register_forward_pre_hook(_shift)
    return net


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        return grad * (x.abs() < 2)


@case("a b")
def autograd_function():
    return Net(lambda m, x: m.head(m.b(Clipped.apply(m.a(x)))), a=conv(3, 8), b=conv(8, 6), head=conv(6, 2))


@torch.library.custom_op("fxprune_tests::gate", mutates_args=())
def gate(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@gate.register_fake
def _(x):
    return torch.empty_like(x)


gate.register_autograd(lambda ctx, grad: grad, setup_context=lambda ctx, inputs, output: None)


@case("b")
def custom_operator_without_a_rule():
    """Whatever reaches it is frozen, by name; the rest is pruned."""
    return Net(lambda m, x: m.head(m.b(torch.ops.fxprune_tests.gate(m.a(x)))), a=conv(3, 8), b=conv(8, 6),
               head=conv(6, 2))


@case("parts.0 b")
def loops_lists_and_assertions():
    def run(m, x):
        assert x.dim() == 4 and x.shape[1] == 3
        outs = []
        for part in m.parts:
            outs.append(part(x))
        if len(outs) > 1:
            x = sum(outs)
        for i in range(2):
            x = m.b(x) if i == 0 else x.relu()
        return m.head(x)

    return Net(run, parts=nn.ModuleList([conv(3, 8), conv(3, 8)]), b=conv(8, 6), head=conv(6, 2))


@case("a", image(size=8))
def interpolation_to_the_size_of_another():
    def run(m, x):
        y = m.a(F.avg_pool2d(x, 2))
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return m.head(torch.cat([y, x], 1))

    return Net(run, a=conv(3, 6), head=conv(9, 2))


@case("a")
def table_held_as_a_plain_attribute():
    """Neither a parameter nor a buffer; its items are taken one by one, and used as numbers."""

    def run(m, x):
        y = m.head(m.a(x).relu())
        return y * torch.cat([y.new_full((1, 1, 1), m.steps[index]) for index in range(2)])

    net = Net(run, a=conv(3, 8), head=conv(8, 2))
    net.steps = torch.tensor([1.5, 2.5])
    return net


@case("a")
def output_that_holds_one_list_twice():
    def run(m, x):
        features = [m.head(m.a(x).relu())]
        return {"many": {"features": features}, "one": {"features": features}}

    return Net(run, a=conv(3, 8), head=conv(8, 2))


@case("a")
def number_written_by_index():
    """On some devices the number becomes a tensor first, by an operator of its own."""

    def run(m, x):
        mask = torch.zeros(x.shape[0], x.shape[2], dtype=x.dtype, device=x.device)
        rows = torch.arange(x.shape[0], device=x.device)
        mask[(rows, rows - rows)] = 1
        return m.head(m.a(x) * mask[:, None, :, None])

    return Net(run, a=conv(3, 8), head=conv(8, 2))


@case("a", tokens())
def call_of_which_nothing_comes():
    """A layer norm over channels that may go, whose result is thrown away."""

    def run(m, x):
        y = m.a(x)
        m.norm(y)
        return m.head(y)

    return Net(run, a=nn.Linear(10, 8), norm=nn.LayerNorm(8), head=nn.Linear(8, 2))
