"""Resampling of positions: interpolation and grids. Channels run along."""

from fxprune.rules.operands import freeze_dims
from fxprune.rules.pooling import over_positions
from fxprune.rules.registry import register_rule

RESAMPLED = "it is resampled"
UPSAMPLE = {
    "linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,), "nearest": (1, 2, 3),
    "_nearest_exact": (1, 2, 3),
    "_bilinear_aa": (2,), "_bicubic_aa": (2,), "_lanczos_aa": (2,),
}


def _names():
    for mode, ranks in UPSAMPLE.items():
        under = "_" if mode.startswith("_") else ""
        for rank in ranks:
            name = mode.removeprefix("_")
            aa = "_aa" if name.endswith("_aa") else ""
            yield f"aten::{under}upsample_{name.removesuffix('_aa')}{rank}d{aa}"


@register_rule(*_names())
def upsample(op, x, *args, **kwargs):
    """All dims behind the channels."""
    return over_positions(op, x, range(2, len(x)), RESAMPLED)


@register_rule("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def grid_sampler(op, x, grid, *args, **kwargs):
    """``x [B, C, *in]`` at ``grid [B, *out, k]``."""
    op.tie(x[0], grid[0])
    freeze_dims(op, x, range(2, len(x)), RESAMPLED)
    freeze_dims(op, grid, range(1, len(grid)), "coordinates")
    return (x[0], x[1], *(op.fixed(n) for n in op.shapes[0][2:]))


@register_rule("aten::affine_grid_generator")
def affine_grid(op, theta, size, align_corners):
    """Coordinates from matrices ``[B, k, k + 1]``."""
    freeze_dims(op, theta, range(1, len(theta)), "an affine map")
    return (theta[0], *(op.fixed(n) for n in op.shapes[0][1:]))
