"""Matrix products: what is contracted is tied, what is not is handed on.

A weight (a parameter among the operands, transposed perhaps) reads the contracted channels and produces those of its
other dimension; a product of two activations does neither, but only the channels that are kept may enter its sums
(``mixes``).
"""

from fxprune.rules.operands import Vectors, broadcast, cost, is_weight, replaced
from fxprune.rules.registry import Operand, register_rule


def without_parameter(*operands: Operand, **kwargs: object) -> bool:
    """Whether no factor of the product is a parameter (whose removed slices verification sets to zero)."""
    return not any(x.is_param for x in operands[:2])


def computed_weight(x: Operand, weight: Operand, *rest: object, **kwargs: object) -> bool:
    """Whether the weight is computed, so that its removed slices need not be zero."""
    return not weight.is_param


def affine(op, x: Operand, weight: Operand, bias: Operand | None) -> Vectors:
    """``x @ weight.T + bias`` with a weight ``[out, in]`` (or ``[in]``)."""
    op.tie(x[-1], weight[-1])
    op.consumes(weight[-1])
    if len(weight) == 1:
        cost(op, *x.vectors)
        return x.vectors[:-1]
    op.produces(weight[0])
    if bias is not None and len(bias):
        op.tie(weight[0], bias[-1]) if bias.shape[-1] == weight.shape[0] else op.freeze(bias[-1], "a single bias")
    cost(op, *x.vectors[:-1], weight[0], weight[1])
    return (*x.vectors[:-1], weight[0])


@register_rule("aten::linear", mixes=computed_weight)
def linear(op, x, weight, bias=None):
    """``[..., in] x [out, in] -> [..., out]``."""
    return affine(op, x, weight, bias)


@register_rule("aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot", "aten::linalg_matmul",
               "aten::linalg_vecdot", mixes=without_parameter)
def matmul(op, a, b, **kwargs):
    """``[..., m, k] x [..., k, n]``; a vector on either side has no m or n; the batch dims broadcast."""
    if op.name == "aten::linalg_vecdot":
        return broadcast(op, a, b)[:-1]
    return product(op, a, b)


def product(op, a: Operand, b: Operand) -> Vectors:
    """The vectors of ``a @ b``, contracted, named and paid for."""
    inner = b[0] if len(b) == 1 else b[-2]
    op.tie(a[-1], inner)
    rows = a.vectors[-2:-1] if len(a) > 1 else ()
    columns = b.vectors[-1:] if len(b) > 1 else ()
    batch = broadcast(op, Operand(a.vectors[:-2]), Operand(b.vectors[:-2]))
    for x, kept, read in ((a, rows, a[-1]), (b, columns, inner)):
        if is_weight(x):
            op.consumes(read)
            for vector in kept:
                op.produces(vector)
    cost(op, *batch, *rows, a[-1], *columns)
    return (*batch, *rows, *columns)


@register_rule("aten::addmm", "aten::addmv", "aten::addbmm", "aten::baddbmm",
               mixes=lambda bias, a, b, **kwargs: without_parameter(a, b))
def added_product(op, bias, a, b, **kwargs):
    """``bias + a @ b``; `addbmm` also sums over the batch."""
    out = product(op, a, b)
    if op.name == "aten::addbmm":
        op.freeze(out[0], "summed over the batch")
        out = out[1:]
    broadcast(op, Operand(out), bias)
    return out


@register_rule("aten::_grouped_mm", "transformers::grouped_mm_fallback", mixes=without_parameter)
def grouped_mm(op, a, b, offs=None, bias=None, out_dtype=None):
    """Rows in runs, each times a matrix of its own: ``[rows, k] x [experts, k, n] -> [rows, n]``, ends in ``offs``.
    transformers has an operator of its own for what torch's does not take."""
    if len(a) != 2 or len(b) != 3:
        return op.unknown(*(x for x in (a, b, offs, bias) if x is not None), why="a grouped product of this rank")[0]
    op.tie(a[1], b[1])
    for vector, why in ((a[0], "rows in runs"), (b[0], "experts")):
        op.freeze(vector, why)
    if bias is not None:
        op.tie(b[2], bias[-1])
    op.consumes(b[1])
    op.produces(b[2])
    cost(op, op.fixed(len(a[0])), b[1], b[2])
    return (op.fixed(len(a[0])), b[2])


@register_rule("aten::outer", "aten::ger")
def outer(op, a, b):
    """Every pair of entries."""
    return (a[0], b[0])


@register_rule("aten::addr")
def addr(op, x, a, b, **kwargs):
    """``x + outer(a, b)``."""
    out = (a[0], b[0])
    broadcast(op, Operand(out), x)
    return out


@register_rule("aten::inner", mixes=without_parameter)
def inner(op, a, b):
    """``a @ b.T`` over the last dimensions."""
    op.tie(a[-1], b[-1])
    cost(op, *a.vectors[:-1], *b.vectors)
    return (*a.vectors[:-1], *b.vectors[:-1])


@register_rule("aten::tensordot", mixes=without_parameter)
def tensordot(op, a, b, dims_self, dims_other):
    """Contracts the named dims of both, in their order."""
    mine, theirs = [d % len(a) for d in dims_self], [d % len(b) for d in dims_other]
    for d, e in zip(mine, theirs, strict=True):
        op.tie(a[d], b[e])
    left = [v for d, v in enumerate(a.vectors) if d not in mine]
    right = [v for d, v in enumerate(b.vectors) if d not in theirs]
    for x, read, kept in ((a, mine, left), (b, theirs, right)):
        if is_weight(x):
            for d in read:
                op.consumes(x[d])
            for vector in kept:
                op.produces(vector)
    cost(op, *left, *(a[d] for d in mine), *right)
    return (*left, *right)


@register_rule("aten::bilinear", mixes=lambda a, b, weight, *rest, **kwargs: not weight.is_param)
def bilinear(op, a, b, weight, bias=None):
    """``a[..., i] · weight[o, i, j] · b[..., j] + bias[o]``."""
    op.tie(a[-1], weight[1])
    op.tie(b[-1], weight[2])
    if bias is not None:
        op.tie(weight[0], bias[0])
    op.produces(weight[0])
    op.consumes(weight[1])
    op.consumes(weight[2])
    batch = broadcast(op, Operand(a.vectors[:-1]), Operand(b.vectors[:-1]))
    cost(op, *batch, *weight.vectors)
    return (*batch, weight[0])


@register_rule("aten::linalg_multi_dot", "aten::chain_matmul", mixes=True)
def multi_dot(op, matrices):
    """A chain of products."""
    out = matrices[0].vectors
    for x in matrices[1:]:
        out = product(op, Operand(out), x)
    return out


@register_rule("aten::cosine_similarity", mixes=True)
def cosine_similarity(op, a, b, dim=1, eps=1e-8):
    """Elementwise products, normalised and summed over one dimension."""
    out = broadcast(op, a, b)
    return replaced(out, dim % len(out))


@register_rule("aten::pairwise_distance", mixes=True)
def pairwise_distance(op, a, b, p=2, eps=1e-6, keepdim=False):
    """The norm of the difference over the last dimension."""
    out = broadcast(op, a, b)
    return (*out[:-1], op.fixed(1)) if keepdim else out[:-1]


@register_rule("aten::cdist", "aten::_cdist_forward", mixes=True)
def cdist(op, a, b, *args, **kwargs):
    """Distances of all rows of one to all rows of the other, over the last dimension."""
    op.tie(a[-1], b[-1])
    batch = broadcast(op, Operand(a.vectors[:-2]), Operand(b.vectors[:-2]))
    cost(op, *batch, a[-2], b[-2], a[-1])
    return (*batch, a[-2], b[-2])
