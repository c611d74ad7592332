"""Watch a model whose Python cannot be traced: a tape without a graph."""

from typing import Any

from torch import nn
from torch.fx import Graph

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.contexts import running
from fxprune.capture.dispatch import is_wrapped
from fxprune.capture.observer import Observer
from fxprune.capture.patches import FAST_PATH, MODULE_CALL, instead, replaced
from fxprune.capture.traced import Traced
from fxprune.ir.example_inputs import Example
from fxprune.ir.tape import Ref
from fxprune.ir.trees import tensors_in


class Watcher(Observer):
    """True tensors, whose contents Python may read."""

    def __init__(self) -> None:
        super().__init__(real=True)

    def data_dependent(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


def watch(root: nn.Module, observer: Watcher, example: Example, differentiates: bool = False) -> Traced:
    """Run ``root`` on real inputs; the tape's places are module paths."""
    names = {id(m): name for name, m in root.named_modules()}
    path: list[str] = []

    def first(value: Any) -> Ref | None:
        # Inside of ``vmap`` and ``jacrev`` operators see what such a tensor stands for, and never itself.
        return next((observer.ref(tensor) for tensor in tensors_in(value) if not is_wrapped(tensor)), None)

    def call(original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        path.append(names.get(id(module), path[-1] if path else ""))
        observer.node = observer.source = path[-1]
        try:
            out = original(module, *args, **kwargs)
            if is_leaf(module):
                observer.tape.modules.setdefault(path[-1], []).append((first((args, kwargs)), first(out)))
            return out
        finally:
            path.pop()
            observer.node = observer.source = path[-1] if path else ""

    with replaced({MODULE_CALL: call, FAST_PATH: instead(lambda: False)}), running(differentiates), observer:
        out = root(*example[0], **example[1])
    observer.returns(out)
    return Traced(Graph(), observer.tape, (), {}, {}, {}, False, out)
