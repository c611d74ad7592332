"""Reductions and scans: dimensions that are summed up, and dimensions along which something runs.

A reduced dimension may lose channels: the result is then that of the kept ones (``mixes``). Where the result names
positions (`argmax`, `topk`, `sort`) or every index weighs against all others (softmax) the dimension is frozen.
"""

from fxprune.rules.operands import Vectors, axes, axis, broadcast, free, freeze_dims, replaced
from fxprune.rules.registry import Operand, register_rule

NAMES_POSITIONS = "its positions are the result"

# `dim` is the second argument; `keepdim` shows in the output's rank.
REDUCTIONS = """
sum mean amax amin logsumexp prod nansum nanmean any all count_nonzero var std special_logsumexp
""".split()


def reduced(op, x: Operand, dims: list[int], output: int = 0) -> Vectors:
    """The vectors without the reduced dims, or with length 1 in their place."""
    if len(op.shapes[output]) == len(x):
        return tuple(op.fixed(1) if d in dims else v for d, v in enumerate(x.vectors))
    return tuple(v for d, v in enumerate(x.vectors) if d not in dims)


@register_rule(*(f"aten::{name}" for name in REDUCTIONS), mixes=True)
def reduction(op, x, dim=None, *args, **kwargs):
    """One output, reduced over ``dim`` (all where none is given; `var(x, unbiased)` has none either)."""
    return reduced(op, x, axes(dim, len(x)))


@register_rule("aten::var_mean", "aten::std_mean", "aten::aminmax", mixes=True)
def two_reductions(op, x, dim=None, *args, **kwargs):
    """Two outputs over the same dims."""
    return [reduced(op, x, axes(dim, len(x)))] * 2


@register_rule("aten::norm", "aten::linalg_vector_norm", "aten::linalg_norm", mixes=True)
def norm(op, x, p=2, dim=None, *args, **kwargs):
    """A norm over ``dim``. `linalg_norm` over two dims is a matrix norm: these are frozen."""
    dims = axes(dim, len(x))
    if op.name == "aten::linalg_norm" and len(dims) == 2 and (dim is not None or p is not None):
        freeze_dims(op, x, dims, "a matrix norm")
    return reduced(op, x, dims)


@register_rule("aten::renorm", mixes=True)
def renorm(op, x, p, dim, maxnorm):
    """Every slice along ``dim`` is scaled down to a norm."""
    return x.vectors


@register_rule("aten::max", "aten::min", "aten::median", "aten::nanmedian", mixes=True)
def extremum(op, x, dim=None, keepdim=False):
    """Of all elements, of two tensors (elementwise), or along one dimension with the positions, which matter where
    something reads them."""
    if isinstance(dim, Operand):
        return broadcast(op, x, dim)
    if dim is None:
        return ()
    out = reduced(op, x, [axis(dim, len(x))])
    if 1 not in op.unread:
        freeze_dims(op, x, [axis(dim, len(x))] if len(x) else [], NAMES_POSITIONS)
    return [out, out]


@register_rule("aten::argmax", "aten::argmin", "aten::mode", "aten::kthvalue", "aten::quantile", "aten::nanquantile")
def argument(op, x, *args, dim=None, **kwargs):
    """Positions along one dimension, or of all elements."""
    dims = [i for i in args if isinstance(i, int) and not isinstance(i, bool)]
    if op.name in ("aten::kthvalue", "aten::quantile", "aten::nanquantile"):
        dims = dims[1 if op.name == "aten::kthvalue" else 0:] or ([-1] if op.name == "aten::kthvalue" else [])
    if op.name == "aten::mode" and not dims:
        dims = [-1]
    dims = axes(dim if dim is not None else (dims[0] if dims else None), len(x))
    freeze_dims(op, x, dims, NAMES_POSITIONS)
    return _outputs(op, reduced_to(op, x, dims))


def reduced_to(op, x: Operand, dims: list[int]) -> Vectors:
    """As `reduced`, for outputs of a rank of their own (several quantiles): fixed where ranks do not fit."""
    out = reduced(op, x, dims)
    return out if tuple(len(v) for v in out) == op.shapes[0] else tuple(op.fixed(n) for n in op.shapes[0])


def _outputs(op, vectors: Vectors):
    return vectors if len(op.shapes) == 1 else [vectors for _ in op.shapes]


@register_rule("aten::topk", "aten::sort", "aten::argsort", "aten::msort")
def sort(op, x, *args, dim=None, **kwargs):
    """Ordered along one dimension, the last where none is named."""
    numbers = [i for i in args if isinstance(i, int) and not isinstance(i, bool)]
    if op.name == "aten::topk":
        numbers = numbers[1:]
    default = 0 if op.name == "aten::msort" else -1
    d = axis(dim if dim is not None else (numbers[0] if numbers else default), len(x))
    if not len(x):
        return _outputs(op, ())
    held = freeze_dims(op, x, [d], NAMES_POSITIONS)
    n = op.shapes[0][d]
    return _outputs(op, held if n == len(held[d]) else replaced(held, d, op.fixed(n)))


@register_rule("aten::softmax", "aten::_softmax", "aten::log_softmax", "aten::_log_softmax", "aten::_safe_softmax",
               "aten::special_softmax", "aten::special_log_softmax")
def softmax(op, x, dim, *args, **kwargs):
    """Every index takes its share from all others: a removed one would not be zero."""
    return freeze_dims(op, x, [axis(dim, len(x))] if len(x) else [], "softmax runs over it")


@register_rule("aten::cumsum", "aten::cumprod", "aten::logcumsumexp", mixes=True)
def scan(op, x, dim, *args, **kwargs):
    """Runs along one dimension, over what is kept of it."""
    return x.vectors


@register_rule("aten::cummax", "aten::cummin")
def positional_scan(op, x, dim):
    """Values and positions."""
    out = freeze_dims(op, x, [axis(dim, len(x))] if len(x) else [], NAMES_POSITIONS)
    return [out, out]


@register_rule("aten::diff")
def diff(op, x, n=1, dim=-1, prepend=None, append=None):
    """Differences of neighbours: who is a neighbour must not change."""
    d = axis(dim, len(x))
    for part in (x, prepend, append):
        if part is not None and free(part[d]):
            op.freeze(part[d], "differences of neighbours")
    return replaced(x.vectors, d, op.fixed(op.shapes[0][d]))


@register_rule("aten::trace")
def trace(op, x):
    """The sum along a diagonal."""
    freeze_dims(op, x, [0, 1], "a diagonal is read")
    return ()


LOSSES = "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy kl_div soft_margin_loss".split()


@register_rule(*(f"aten::{name}" for name in [*LOSSES, "binary_cross_entropy_with_logits"]))
def elementwise_loss(op, x, target, *args, **kwargs):
    """Training losses inside a model: a mean over everything, so that nothing of it may go."""
    return op.unknown(x, target, why="a loss is taken over it")[0]


@register_rule("aten::cross_entropy_loss", "aten::nll_loss", "aten::nll_loss_nd", "aten::nll_loss2d")
def class_loss(op, x, target, *args, **kwargs):
    """Targets name classes by position."""
    return op.unknown(x, target, why="a loss is taken over it")[0]
