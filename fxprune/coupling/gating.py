"""Which producers only gate a channel, and so have no say in whether it goes.

A producer whose slice is zero sends on zero, and so do most operators. Some do not: ``sigmoid`` makes a half of it,
``1 + scale`` makes one. Multiplied with another producer's zero the product is zero all the same, whatever the gate
does; and with a gate at zero alone it is not. So of a product in which one side's zero survives and the other's does
not, the second side's producers are *gates*, unless they reach a layer by another way:

    squeeze and excitation, attention gates    y · sigmoid(fc(…))        y's producers vote, fc does not
    modulation (FiLM, adaptive norms)          y · (1 + scale) + shift   y's producers and shift's vote, scale's do not
    SwiGLU, GEGLU, bilinear                    silu(a) · b               both vote: each brings the product to zero
    GLU                                        a · sigmoid(b)            one layer has both rows: it votes with both
    attention, within heads                    softmax(q kᵀ) v           v for its channels; q and k for theirs
    attention, whole heads                     softmax(q kᵀ) v           v votes, q and k do not

Where a gate has no say, "zero" has to be zero: the voters of such a channel are weighed with their bias and with their
normalisation's scale and shift, so that nothing is left for the gate to let through.

The analysis walks along the recorded run: what each tensor owes to which producer, and whether that producer's zero is
still a zero there. What is not known to keep a zero is taken not to, which is safe for both sides of a product.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fxprune.ir.groups import PRODUCER, CouplingGroup
from fxprune.ir.tape import Call, Ref, Tape, refs

# A product with a zero is zero; of a sum, each part is judged for itself.
PRODUCTS = {"mul", "multiply", "bmm", "matmul", "baddbmm", "einsum"}
SUMS = {"add", "sub", "rsub", "subtract", "cat", "stack", "maximum", "minimum", "concat", "concatenate"}
# f(0) = 0, or the same numbers elsewhere.
KEEPING = set("""
relu relu_ relu6 leaky_relu elu celu selu gelu silu mish tanh hardswish hardtanh softshrink hardshrink abs neg sin asin
sqrt square erf expm1 log1p sign clone contiguous detach dropout native_dropout feature_dropout alias _to_copy to
view reshape _unsafe_view flatten unflatten permute transpose t movedim squeeze unsqueeze expand expand_as repeat
slice select index narrow split split_with_sizes chunk unbind roll flip pixel_shuffle pixel_unshuffle channel_shuffle
max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool2d max_pool2d_with_indices mean sum reflection_pad2d upsample_nearest2d
upsample_bilinear2d upsample_bicubic2d prelu rrelu rms_norm
""".split())
DIVISIONS = {"div", "divide", "true_divide"}
NORMS = {"batch_norm", "instance_norm", "group_norm", "layer_norm"}
LAYERS = {"linear", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
          "conv_transpose3d", "addmm", "mm", "embedding"}
ATTENTION = "scaled_dot_product_attention"
Owed = Mapping[str, bool]


@dataclass(frozen=True)
class Gating:
    """Args:
    pairs: (gate, gated): in some product the first producer's zero is none, and the second's is.
    shifts: producer -> what else must be zero for its channels to be: bias, scale and shift of its normalisation.
    """

    pairs: frozenset[tuple[str, str]]
    shifts: Mapping[str, tuple[str, ...]]

    def marked(self, group: CouplingGroup) -> CouplingGroup:
        """The group with its gates, and with what its gated producers are weighed with."""
        made = {m.name for m in group.members if m.role == PRODUCER}
        pairs = {(gate, gated) for gate, gated in self.pairs if {gate, gated} <= made}
        gates = frozenset(gate for gate, _ in pairs)
        weighed = {gated: self.shifts[gated] for _, gated in sorted(pairs) if gated not in gates}
        return replace(group, gates=gates, shifts=weighed) if weighed else group


def gating(tapes: Iterable[Tape], groups: Iterable[CouplingGroup]) -> Gating:
    """Walk along the recorded runs."""
    producers = frozenset(m.name for group in groups for m in group.members if m.role == PRODUCER)
    walks = [_Walk(tape, producers) for tape in tapes]
    reached = frozenset().union(*(walk.reached for walk in walks))
    pairs = frozenset(pair for walk in walks for pair in walk.pairs if pair[0] not in reached)
    shifts = {name: tuple(dict.fromkeys(found)) for walk in walks for name, found in walk.shifts.items()}
    return Gating(pairs, shifts)


class _Walk:
    """One tape: ``owed[tensor]`` says of each producer whether its zero is a zero there."""

    def __init__(self, tape: Tape, producers: frozenset[str]):
        self.tape, self.producers = tape, producers
        self.reached: set[str] = set()
        self.pairs: set[tuple[str, str]] = set()
        self.shifts: dict[str, list[str]] = {}
        self.owed: dict[int, Owed] = {}
        self.fresh: dict[int, str] = {}
        for call in tape.calls:
            self._call(call)
        for ref in tape.outputs:
            self.reached |= set(self.owed.get(ref, ()))

    def _call(self, call: Call) -> None:
        op = call.op.partition("::")[2].rstrip("_")
        operands = list(refs((call.args, call.kwargs)))
        weights = [self.tape.params[ref.id] for ref in operands if ref.id in self.tape.params]
        found = self._after(op, call, operands, weights)
        for out in refs(call.outs):
            self.owed[out.id] = found

    def _after(self, op: str, call: Call, operands: list[Ref], weights: list[str]) -> Owed:
        parts = [self.owed[ref.id] for ref in operands if self.owed.get(ref.id)]
        maker = next((name for name in weights if name in self.producers), None)
        if maker is not None and (op in LAYERS or not parts):
            return self._layer(maker, call, parts, weights)
        if op in LAYERS or not parts:
            self.reached.update(*parts)
            return {}
        if op in NORMS:
            return self._norm(operands, parts, weights)
        if op == ATTENTION:
            sides = [self.owed.get(ref.id, {}) for ref in operands[:3]]
            return self._product([*map(_spoilt, sides[:2]), sides[2]])
        if op in PRODUCTS and len(parts) > 1:
            return self._product(parts)
        if op in PRODUCTS | KEEPING or op in DIVISIONS and self.owed.get(operands[0].id) and len(parts) == 1:
            return _joined(parts)
        if op in SUMS and not weights and not any(isinstance(arg, (int, float)) and arg for arg in call.args):
            return _joined(parts)
        return _spoilt(_joined(parts))

    def _layer(self, maker: str, call: Call, parts: list[Owed], weights: list[str]) -> Owed:
        self.reached.update(*parts)
        self.shifts[maker] = [name for name in weights if name != maker]
        for out in refs(call.outs):
            self.fresh[out.id] = maker
        return {maker: True}

    def _norm(self, operands: list[Ref], parts: list[Owed], weights: list[str]) -> Owed:
        """Right behind its producer, a norm's scale and shift are part of the producer's zero; elsewhere its shift is
        what a zero becomes."""
        maker = self.fresh.get(operands[0].id)
        affine = [name for name in weights if not name.rpartition(".")[2].startswith("running_")]
        if maker is None or len(affine) < 2:
            return _spoilt(_joined(parts))
        self.shifts[maker] += affine
        return _joined(parts)

    def _product(self, parts: list[Owed]) -> Owed:
        """Where one side's zeros all survive, the producers whose zeros do not are its gates."""
        zeros = [part for part in parts if all(part.values())]
        if not zeros:
            return _joined(parts)
        kept = {name for part in zeros for name in part}
        lost = {name for part in parts for name in part} - kept
        self.pairs |= {(gate, gated) for gate in lost for gated in kept}
        return dict.fromkeys(kept, True)


def _joined(parts: Iterable[Owed]) -> Owed:
    """Side by side: a producer's zero is a zero if it is one in all of them."""
    found: dict[str, bool] = {}
    for part in parts:
        for name, zero in part.items():
            found[name] = found.get(name, True) and zero
    return found


def _spoilt(owed: Owed) -> Owed:
    return dict.fromkeys(owed, False)
