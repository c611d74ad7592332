"""``nn.MultiheadAttention`` in the module form. Its forward demands that all heads together are as wide as the model,
and takes its scale from the size of one: so whole heads go, and with each as many channels of the model.
"""

from torch import nn

from fxprune.coupling.replay import InStep
from fxprune.ir.tape import Call, Ref, TensorDim
from fxprune.rewrite.call_numbers import Calls
from fxprune.rewrite.holding import Held

WHY = "nn.MultiheadAttention must be as wide inside as outside, and derives its scale from the head size"


def attention_set(model: nn.Module, small: nn.Module, calls: Calls) -> Held:
    """Set what the copy's attention modules remember; what must be tied or frozen for that is returned."""
    held = Held()
    for path, module in small.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found = _held(calls, path, module)
            held |= found
            if not found:
                _set(module)
    return held


def _held(calls: Calls, path: str, module: nn.MultiheadAttention) -> Held:
    held = Held()
    attention, width = _attention(calls, path), _width(calls, path)
    if attention is None:
        return held
    query = attention.args[0]
    sizes = [TensorDim(calls.tape, ref.id, len(ref.shape) - 1) for ref in attention.args[:3]]
    heads, size = TensorDim(calls.tape, query.id, len(query.shape) - 3), sizes[0]
    shrinking = Held({place: WHY for place in sizes if calls.shrinks(place)})
    if shrinking:
        return shrinking
    outer = calls.left(width) if width else module.embed_dim
    if calls.left(heads) * calls.size(size) != outer:
        held[InStep(width, heads) if width else heads] = WHY
    return held


def _parameters(calls: Calls, path: str, names: tuple[str, ...]) -> set[int]:
    return {number for number, name in calls.view.tape.params.items() if name in {f"{path}.{leaf}" for leaf in names}}


def _reading(calls: Calls, numbers: set[int]) -> int | None:
    """The first call that reads one of these tensors or a view of it."""
    known = set(numbers)
    for position, call in enumerate(calls.view.tape.calls):
        if any(isinstance(arg, Ref) and arg.id in known for arg in call.args):
            if call.op == "aten::linear":
                return position
            known |= {ref.id for ref in ([call.outs] if isinstance(call.outs, Ref) else call.outs)}
    return None


def _attention(calls: Calls, path: str) -> Call | None:
    start = _reading(calls, _parameters(calls, path, ("in_proj_weight", "q_proj_weight")))
    if start is None:
        return None
    rest = calls.view.tape.calls[start:]
    return next((call for call in rest if call.op == "aten::scaled_dot_product_attention"), None)


def _width(calls: Calls, path: str) -> TensorDim | None:
    """The width of the queries as they arrive; None where they are not captured so."""
    start = _reading(calls, _parameters(calls, path, ("in_proj_weight", "q_proj_weight")))
    if start is None:
        return None
    query = calls.view.tape.calls[start].args[0]
    return TensorDim(calls.tape, query.id, len(query.shape) - 1)


def _set(module: nn.MultiheadAttention) -> None:
    module.embed_dim = module.out_proj.weight.shape[1]
    module.num_heads = module.embed_dim // module.head_dim
    module.out_proj.in_features, module.out_proj.out_features = reversed(module.out_proj.weight.shape)
    if module.in_proj_weight is not None:
        module.kdim = module.vdim = module.embed_dim
    else:
        module.kdim, module.vdim = module.k_proj_weight.shape[1], module.v_proj_weight.shape[1]
