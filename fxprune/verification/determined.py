"""Random operators made deterministic, alike on both sides: their streams would differ, since their sizes do. And
convolutions that would take long."""

from collections.abc import Callable
from typing import Any

import torch

from fxprune.capture.dispatch import operator_name
from fxprune.capture.skipping import MIDDLE, UNIFORM
from fxprune.verification.depthwise import convolve

Handler = Callable[[Any, Any, Any], Any]


def _identity(func: Any, args: Any, kwargs: Any) -> Any:
    return args[0] if operator_name(func).endswith("_") else args[0].clone()


def _filled(value: float) -> Handler:
    def handler(func: Any, args: Any, kwargs: Any) -> Any:
        if operator_name(func).endswith("_"):
            return args[0].fill_(value)
        out = func(*args, **kwargs)
        return out.fill_(value)

    return handler


def _in_order(func: Any, args: Any, kwargs: Any) -> Any:
    out = func(*args, **kwargs)
    return out.copy_(torch.arange(len(out), device=out.device))


def _native(func: Any, args: Any, kwargs: Any) -> Any:
    return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)


def _attention(func: Any, args: Any, kwargs: Any) -> Any:
    args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
    kwargs = {**kwargs, "dropout_p": 0.0} if "dropout_p" in kwargs else kwargs
    return func(*args, **kwargs)


def _recurrent(func: Any, args: Any, kwargs: Any) -> Any:
    """``(…, num_layers, dropout, train, …)``: the float is the dropout."""
    return func(*(0.0 if isinstance(arg, float) else arg for arg in args), **kwargs)


def _rrelu(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args[:3], False)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _identity),
    **dict.fromkeys(("bernoulli",), _filled(1.0)),
    **dict.fromkeys("rand randn rand_like randn_like uniform normal exponential cauchy log_normal poisson".split(),
                    _filled(MIDDLE)),
    **dict.fromkeys("randint randint_like random geometric multinomial binomial".split(), _filled(1)),
    **dict.fromkeys("empty empty_like new_empty empty_strided new_empty_strided empty_permuted".split(), _filled(0)),
    "randperm": _in_order,
    "native_dropout": _native,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "rrelu": _rrelu,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolve),
}


def run(func: Any, args: Any, kwargs: Any, skipping: bool = False) -> Any:
    """Run an operator, without its randomness.

    Args:
        skipping: whether uniform numbers are so small that what they decide about is skipped.
    """
    if skipping and operator_name(func) in UNIFORM:
        return _filled(0.0)(func, args, kwargs)
    handler = HANDLERS.get(operator_name(func).partition("::")[2].rstrip("_"))
    return func(*args, **kwargs) if handler is None else handler(func, args, kwargs)
