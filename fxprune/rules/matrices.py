"""Transforms that take whole dimensions: Fourier transforms, factorisations, inverses."""

from fxprune.rules.operands import axes, broadcast, freeze_dims, operands
from fxprune.rules.registry import Operand, register_rule

FOURIER = """
fft ifft rfft irfft hfft ihfft fft2 ifft2 rfft2 irfft2 hfft2 ihfft2 fftn ifftn rfftn irfftn hfftn ihfftn
""".split()


@register_rule(*(f"aten::fft_{name}" for name in FOURIER))
def fourier(op, x, n=None, dim=None, norm=None):
    """Every frequency depends on all indices of a transformed dimension. The one-dimensional ones take the last
    dimension by default, those of pairs the last two, the others all (or as many as ``s`` has entries)."""
    kind = op.name.removeprefix("aten::fft_")
    if dim is None and kind.endswith("2"):
        dim = [-2, -1]
    elif dim is None and not kind.endswith("n"):
        dim = -1
    elif dim is None and n is not None:
        dim = list(range(-len(n), 0))
    dims = axes(dim, len(x))
    held = freeze_dims(op, x, dims, "a Fourier transform runs over it")
    return tuple(op.fixed(k) if d in dims else held[d] for d, k in enumerate(op.shapes[0]))


@register_rule("aten::_fft_r2c", "aten::_fft_c2r", "aten::_fft_c2c")
def fourier_decomposed(op, x, dim, *args, **kwargs):
    """The same, decomposed."""
    dims = axes(dim, len(x))
    held = freeze_dims(op, x, dims, "a Fourier transform runs over it")
    return tuple(op.fixed(k) if d in dims else held[d] for d, k in enumerate(op.shapes[0]))


@register_rule("aten::fft_fftshift", "aten::fft_ifftshift")
def fourier_shift(op, x, dim=None):
    """Rotated by half the length, which would be another half."""
    return freeze_dims(op, x, axes(dim, len(x)), "shifted by half its length")


# Functions of the last two dims; what lies before them are batches. Names under `linalg` and their old ones.
MATRICES = """
linalg_inv linalg_inv_ex inverse linalg_pinv pinverse linalg_qr linalg_svd svd _linalg_svd linalg_svdvals linalg_eig
linalg_eigh _linalg_eigh linalg_eigvalsh linalg_eigvals linalg_cholesky linalg_cholesky_ex linalg_matrix_power
matrix_power linalg_matrix_exp matrix_exp linalg_slogdet slogdet logdet linalg_det det linalg_matrix_rank linalg_lu
linalg_lu_factor linalg_lu_factor_ex linalg_solve linalg_solve_ex _linalg_solve_ex linalg_solve_triangular
triangular_solve
""".split()


@register_rule(*(f"aten::{name}" for name in MATRICES), mixes=True)
def matrix_function(op, *args, **kwargs):
    """Every entry depends on all others of its matrix."""
    matrices = [x for x in operands(args, kwargs) if len(x) > 1]
    for x in matrices:
        freeze_dims(op, x, [len(x) - 2, len(x) - 1], "a matrix as a whole")
    batch = broadcast(op, [Operand(x.vectors[:-2]) for x in matrices])
    return _outputs(op, [(*batch, *(op.fixed(n) for n in shape[len(batch):])) for shape in op.shapes])


# Those that have no batches, or whose result is laid out in a way of its own.
OPAQUE = "kron cov corrcoef stft istft linalg_cross cross linalg_lstsq linalg_householder_product lu_unpack".split()


@register_rule(*(f"aten::{name}" for name in OPAQUE))
def opaque(op, *args, **kwargs):
    """Nothing survives."""
    return _outputs(op, op.unknown(*operands(args, kwargs), why=f"{op.name.rpartition('::')[2]} takes it as a whole"))


def _outputs(op, outs):
    return outs if len(outs) > 1 else outs[0]
