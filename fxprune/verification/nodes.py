"""Run a GraphModule node by node, and show the value of each."""

import inspect
from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule, Interpreter, Node

from fxprune.ir.example_inputs import Example


class _Watched(Interpreter):
    """Binds its arguments as a call of the module's ``forward`` would."""

    def __init__(self, module: GraphModule, example: Example, seen: Callable[[str, Any], None]):
        super().__init__(module)
        bound = inspect.signature(module.forward).bind(*example[0], **example[1])
        bound.apply_defaults()
        self.given, self.seen = bound.arguments, seen

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.given[target.lstrip("*")]

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        self.seen(n.name, value)
        return value


def run_nodes(module: GraphModule, example: Example, seen: Callable[[str, Any], None]) -> Any:
    """The output; ``seen(name, value)`` is called as soon as a node has run."""
    return _Watched(module, example, seen).run()


def by_keyword(forward: Callable[..., Any], example: Example) -> Example:
    """The same arguments for ``forward``, by keyword wherever it takes them so.

    >>> by_keyword(lambda x, y=0, *rest: None, ((1, 2), {}))
    ((), {'x': 1, 'y': 2})
    >>> by_keyword(lambda x, *rest: None, ((1, 2), {}))
    ((1, 2), {})
    """
    signature = inspect.signature(forward)
    bound = signature.bind(*example[0], **example[1])
    kinds = [signature.parameters[name].kind for name in bound.arguments]
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.POSITIONAL_ONLY in kinds:
        return example
    kwargs = {name: value for name, value in bound.arguments.items()
              if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD}
    return (), kwargs | bound.kwargs
