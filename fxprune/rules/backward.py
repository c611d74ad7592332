"""Operators of a backward pass, which a model runs that differentiates in its forward (forces, Jacobians).

Linear maps run backward as products, sums as expansions: those have their rules elsewhere. Left out: the gradients of
norms and pooling, and those that go to weights.
"""

from fxprune.rules.operands import broadcast
from fxprune.rules.registry import register_rule

POINTWISE = """
elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish rrelu_with_noise sigmoid silu softplus
softshrink tanh threshold
""".split()


@register_rule(*(f"aten::{name}_backward" for name in POINTWISE), "aten::infinitely_differentiable_gelu_backward",
               "aten::native_dropout_backward")
def pointwise_backward(op, *args, **kwargs):
    """What arrives from behind, and the operator's own input or result, index by index."""
    return broadcast(op, args, kwargs)


@register_rule("aten::_softmax_backward_data", "aten::_log_softmax_backward_data", mixes=True)
def softmax_backward(op, grad, output, dim, *args):
    """A sum over ``dim``; what may go there the softmax itself has said, whose result this is."""
    return broadcast(op, grad, output)


@register_rule("aten::convolution_backward")
def convolution_backward(op, grad, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups,
                         output_mask):
    """The gradient that goes to the input: a convolution the other way."""
    if groups != 1 or list(output_mask) != [True, False, False]:
        return op.unknown(grad, x, weight, why="only the gradient of one group's input is known")
    out, inner = (1, 0) if transposed else (0, 1)
    op.tie(grad[1], weight[out])
    op.tie(x[1], weight[inner])
    return [(x[0], weight[inner], *x.vectors[2:])]
