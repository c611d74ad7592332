"""torchvision's own operators: regions of interest, deformable convolution, suppression of boxes."""

from fxprune.rules.convolution import convolve
from fxprune.rules.movement import blocks
from fxprune.rules.operands import freeze_dims, operands
from fxprune.rules.registry import Operand, register_rule

REGIONS = "regions of interest are cut out of it"


def _regions(op, x, rois):
    """Freeze what is cut; gives the vector of the regions."""
    freeze_dims(op, x, [0, 2, 3], REGIONS)
    freeze_dims(op, rois, range(len(rois)), "boxes")
    return op.fixed(op.shapes[0][0])


@register_rule("torchvision::roi_align")
def roi_align(op, x, rois, *args, **kwargs):
    """``[B, C, H, W]`` and ``[K, 5]`` give ``[K, C, h, w]``."""
    return (_regions(op, x, rois), x[1], *(op.fixed(n) for n in op.shapes[0][2:]))


@register_rule("torchvision::roi_pool")
def roi_pool(op, x, rois, *args, **kwargs):
    """The same, with the positions of the maxima."""
    out = roi_align(op, x, rois)
    return [out, out]


@register_rule("torchvision::ps_roi_align", "torchvision::ps_roi_pool")
def position_sensitive(op, x, rois, *args, **kwargs):
    """``[B, C·h·w, H, W]`` gives ``[K, C, h, w]``: blocks of h·w channels."""
    regions, (_, channels, *places) = _regions(op, x, rois), op.shapes[0]
    kept = blocks(op, x, 1, len(x[1]) // channels)
    out = (regions, kept, *(op.fixed(n) for n in places))
    mapping = (regions, kept, *(op.fixed(n) for n in op.shapes[1][2:]))
    return [out, mapping]


@register_rule("torchvision::deform_conv2d", mixes=lambda x, weight, *rest, **kwargs: not weight.is_param)
def deform_conv2d(op, x, weight, offset, mask, bias, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups,
                  offset_groups, use_mask):
    """A convolution whose kernel positions are moved; with several groups of offsets, channels belong to theirs."""
    for part in (offset, mask if use_mask else None):
        if isinstance(part, Operand):
            op.tie(x[0], part[0])
            freeze_dims(op, part, range(1, len(part)), "offsets of kernel positions")
    if offset_groups > 1:
        op.freeze(x[1], "channels in groups of offsets")
    return convolve(op, x, weight, bias, groups, False, (stride_h, stride_w), (pad_h, pad_w))


@register_rule("torchvision::nms")
def suppression(op, *args, **kwargs):
    """Which boxes are left depends on the data."""
    return op.unknown(*operands(args, kwargs), why="boxes are suppressed")[0]
