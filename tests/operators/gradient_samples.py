"""Operators of a backward pass, as a model meets them that differentiates in its forward."""

import torch
from nets import Sample, image, tokens
from torch import nn

ATEN = torch.ops.aten
# What an operator is given besides the gradient and its own input or result.
ARGUMENTS = {
    "elu": (1.0, 1.0, 1.0, False), "gelu": (), "hardshrink": (0.5,), "hardsigmoid": (), "hardswish": (),
    "hardtanh": (-1.0, 1.0), "leaky_relu": (0.1, False), "mish": (), "sigmoid": (), "silu": (), "softplus": (1.0, 20.0),
    "softshrink": (0.5,), "tanh": (), "threshold": (0.0,),
}


def backward(name, *args):
    operator = getattr(ATEN, f"{name}_backward")
    if name == "elu":  # its own input comes last
        return image(f"{name}_backward", lambda net, x: operator(x.cos(), *args, x))
    return image(f"{name}_backward", lambda net, x: operator(x.cos(), x, *args))


def differentiated(net, x, layer):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(layer(x).square().sum(), x)[0]


SAMPLES: list[Sample] = [
    *[backward(name, *args) for name, args in ARGUMENTS.items()],
    image("log_sigmoid_backward", lambda net, x: ATEN.log_sigmoid_backward(x.cos(), x, (-x.abs()).exp())),
    image("rrelu_with_noise_backward",
          lambda net, x: ATEN.rrelu_with_noise_backward(x.cos(), x, x.sin(), 0.1, 0.3, False, False)),
    image("infinitely_differentiable_gelu_backward",
          lambda net, x: ATEN.infinitely_differentiable_gelu_backward(x.cos(), x)),
    image("native_dropout_backward", lambda net, x: ATEN.native_dropout_backward(x.cos(), x > 0, 2.0)),
    tokens("_softmax_backward_data over positions",
           lambda net, x: ATEN._softmax_backward_data(x.cos(), x.softmax(1), 1, x.dtype)),
    tokens("_log_softmax_backward_data over positions",
           lambda net, x: ATEN._log_softmax_backward_data(x.cos(), x.log_softmax(1), 1, x.dtype)),
    image("convolution_backward", lambda net, x: differentiated(net, x, net.c), c=lambda: nn.Conv2d(8, 6, 3)),
    image("convolution_backward of a transposed one", lambda net, x: differentiated(net, x, net.c),
          c=lambda: nn.ConvTranspose2d(8, 6, 3)),
    image("convolution_backward of groups", lambda net, x: differentiated(net, x, net.c),
          c=lambda: nn.Conv2d(8, 8, 3, groups=2), prunable=False),
    image("a tensor that is squeezed in place", lambda net, x: x.unsqueeze(2).squeeze_(2).relu()),
]
