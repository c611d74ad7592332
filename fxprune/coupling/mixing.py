"""Where channels that go are normalised or compared with those that stay, so that zeros in their place would count."""

from collections.abc import Iterable
from typing import Any

from fxprune.coupling.view import View
from fxprune.ir.tape import Call, Ref, refs
from fxprune.rules.registry import Rule, rule_for


def mixes_removed(view: View, call: Call) -> bool:
    """Whether an operator mixes the entries of a dimension out of which some go, and cannot do with zeros for them."""
    rule = rule_for(call.op)
    return rule is not None and _mixes(rule, call, view) and any(
        not mask.all() for ref in refs((call.args, call.kwargs)) for mask in view.masks(ref))


def _mixes(rule: Rule, call: Call, view: View) -> bool:
    if not callable(rule.mixes):
        return rule.mixes
    return bool(rule.mixes(*_stand_ins(call.args, view), **dict(_named(call.kwargs, view))))


def _stand_ins(args: Iterable[Any], view: View) -> list[Any]:
    return [_Known(view.dims.get(arg.id, ()), arg.id in view.tape.params) if isinstance(arg, Ref) else arg
            for arg in args]


def _named(kwargs: dict[str, Any], view: View) -> list[tuple[str, Any]]:
    return list(zip(kwargs, _stand_ins(kwargs.values(), view), strict=True))


class _Known:
    """What a ``mixes`` predicate may ask of a tensor."""

    def __init__(self, vectors: Any, is_param: bool):
        self.vectors, self.is_param = vectors, is_param

    def __getitem__(self, dim: int) -> Any:
        return self.vectors[dim]

    def __len__(self) -> int:
        return len(self.vectors)
