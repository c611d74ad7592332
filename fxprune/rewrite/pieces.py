"""Pieces of a tensor in the module form. A graph writes their lengths out; the model's Python says one number, of
chunks or for all pieces, and only pieces that it cuts from what is left will do.
"""

from typing import Any

from torch.fx import Node

from fxprune.capture.outline import Path, numbered
from fxprune.coupling.view import View
from fxprune.rewrite.site import LiteralError
from fxprune.rules.targets import qualified

CHUNKED, SPLIT = ("aten::chunk", "aten::unsafe_chunk"), ("aten::split", "aten::split_with_sizes", "aten::unsafe_split")
_NAMES = ("chunks", "split_size", "split_size_or_sections", "split_sizes")
UNLIKE = "its pieces would be unlike, and the model's Python cuts them by one number"


def cuts_pieces(node: Node) -> bool:
    """Whether a call of a graph cuts a tensor into pieces of lengths that it is told."""
    return node.op in ("call_function", "call_method") and qualified(node.target) in (*CHUNKED, *SPLIT)


def piece_numbers(view: View, node: Node) -> dict[Path, Any]:
    """What such a call must be given, in the form in which it is.

    Raises:
        LiteralError: no number cuts these pieces.
    """
    refs = list(view.refs(node.name).values())
    before = {path: view.evaluate(leaf.meta["size"], natural=False) if isinstance(leaf, Node) else leaf
              for path, leaf in numbered((node.args, node.kwargs))}
    place = next(((1, name) for name in _NAMES if name in node.kwargs), (0, 1))
    shrunk = [dim for ref in refs for dim, mask in enumerate(view.masks(ref)) if not mask.all()]
    dim = _dim(node, before, len(refs[0].shape)) if refs else 0
    if dim not in shrunk:
        return before
    lengths = [view.lengths(ref)[dim] for ref in refs]
    listed = sorted(path for path in before if path[:2] == place and len(path) == 3)
    if listed:
        return before | dict(zip(listed, lengths, strict=True))
    number = before[place] if qualified(node.target) in CHUNKED else lengths[0]
    size = -(-sum(lengths) // number) if qualified(node.target) in CHUNKED else number
    if any(length != size for length in lengths[:-1]) or lengths[-1] > size:
        raise LiteralError(node.name, UNLIKE)
    return before | {place: number}


def _dim(node: Node, before: dict[Path, Any], rank: int) -> int:
    return int(before.get((1, "dim"), before.get((0, 2), 0))) % rank
