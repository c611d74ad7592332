"""Tensors made from nothing: constants, whose dimensions are free, and coordinates, whose dimensions are positions.

A constant or a draw from one distribution is the same all along a dimension, so that indices of it may go when what it
meets loses channels; its sizes are then rewritten. A range, a window or a mask has a meaning for every index.
"""

from typing import Any

from fxprune.rules.literals import Call, listed_sizes, output_sizes
from fxprune.rules.operands import Vectors, argument, broadcast, fixed_outputs, freeze_dims, operands, with_argument
from fxprune.rules.registry import register_rule

CONSTANT = """
zeros ones full empty new_zeros new_ones new_full new_empty scalar_tensor
""".split()
DRAWN = "rand randn".split()
LIKE = """
zeros_like ones_like full_like empty_like rand_like randn_like randint_like bernoulli poisson uniform exponential random
log_normal cauchy geometric
""".split()
POSITIONS = """
arange range linspace logspace tril_indices triu_indices randperm hann_window hamming_window bartlett_window
blackman_window kaiser_window fft_fftfreq fft_rfftfreq
""".split()


# Laid out by strides, which no size can be taken from.
STRIDED = "empty_strided new_empty_strided empty_permuted".split()


def fresh_output(op) -> Vectors:
    """An output whose dimensions may take any length; a single index stays."""
    return tuple(op.fresh(n) if n > 1 else op.fixed(n) for n in op.shapes[0])


@register_rule(*(f"aten::{name}" for name in [*CONSTANT, *DRAWN]), literals=output_sizes)
@register_rule("aten::randint", literals=listed_sizes)
def constant(op, *args, **kwargs):
    """Constant along every dimension; ``x.new_zeros(size)`` takes dtype and device of ``x`` only."""
    return fresh_output(op)


@register_rule(*(f"aten::{name}" for name in LIKE))
def like(op, x, *args, **kwargs):
    """A constant or a draw of the operand's shape, in place or not."""
    return x.vectors


@register_rule("aten::normal", literals=listed_sizes)
def normal(op, *args, **kwargs):
    """``normal(mean, std)`` with tensors is elementwise, with numbers a draw of a given size."""
    return broadcast(op, args, kwargs) if next(operands(args), None) else fresh_output(op)


@register_rule(*(f"aten::{name}" for name in POSITIONS))
def positions(op, *args, **kwargs):
    """Every index has a meaning of its own."""
    for x in operands(args):
        freeze_dims(op, x, range(len(x)), "bounds of a range")
    return fixed_outputs(op)[0]


def _sides(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``torch.eye(n)``, ``torch.eye(n, m)``."""
    for place, (name, length) in enumerate(zip(("n", "m"), site.outs()[0], strict=True)):
        given = argument(args, kwargs, place, name, None)
        if given is not None:
            args, kwargs = with_argument(args, kwargs, place, name, site.size(given, length))
    return target, args, kwargs


@register_rule("aten::eye", literals=_sides)
def eye(op, n, m=None, **kwargs):
    """Row i and column i hold the same one, and go or stay together: what is left is an identity again."""
    rows, columns = op.shapes[0]
    longer = op.fresh(max(rows, columns))
    return longer[:rows], longer[:columns]


@register_rule(*(f"aten::{name}" for name in STRIDED))
def strided(op, *args, **kwargs):
    """Sizes and strides belong together."""
    return fixed_outputs(op, "its strides are numbers")[0]


@register_rule("aten::tril", "aten::triu")
def triangle(op, x, *args, **kwargs):
    """Keeps what lies on one side of a matrix's diagonal."""
    return freeze_dims(op, x, [len(x) - 2, len(x) - 1], "a triangle of a matrix")


@register_rule("aten::fill_diagonal")
def fill_diagonal(op, x, *args, **kwargs):
    """Writes where all indices are equal."""
    return freeze_dims(op, x, range(len(x)), "a diagonal is written")


@register_rule("aten::diagonal", "aten::linalg_diagonal")
def diagonal(op, x, offset=0, dim1=0, dim2=1):
    """Reads where two indices are equal; they become the last dimension."""
    if op.name == "aten::linalg_diagonal":
        dim1, dim2 = -2, -1
    dims = [dim1 % len(x), dim2 % len(x)]
    held = freeze_dims(op, x, dims, "a diagonal is read")
    return (*(v for d, v in enumerate(held) if d not in dims), op.fixed(op.shapes[0][-1]))


@register_rule("aten::diag_embed")
def diag_embed(op, x, offset=0, dim1=-2, dim2=-1):
    """The last dimension becomes the diagonal of two; the others run along."""
    held = iter(freeze_dims(op, x, [len(x) - 1], "a diagonal matrix"))
    new = {dim1 % (len(x) + 1), dim2 % (len(x) + 1)}
    return tuple(op.fixed(n) if d in new else next(held) for d, n in enumerate(op.shapes[0]))


@register_rule("aten::diag", "aten::diagflat", "aten::block_diag")
def diagonal_matrix(op, *args, **kwargs):
    """Matrices made from their diagonals, and the reverse."""
    return op.unknown(*operands(args, kwargs), why="a diagonal matrix")[0]
