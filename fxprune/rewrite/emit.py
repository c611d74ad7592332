"""Emit the pruned GraphModule: rewrite the calls, slice what they use, put the guards in."""

import operator
import re
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from fxprune.capture.call_signature import STARS, Marks
from fxprune.capture.constant_arguments import as_captured, pattern
from fxprune.capture.graph_nodes import create_node
from fxprune.capture.liveness import written_later
from fxprune.capture.model_walk import named_modules
from fxprune.capture.sizes import Apply, Dim, Guard, leaves, line, readable
from fxprune.capture.torch_functions import ASSERT
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.view import View
from fxprune.errors import UnsupportedError
from fxprune.ir.call_arguments import EMPTY, Argument, arguments
from fxprune.ir.example_inputs import TensorSpec
from fxprune.planning import Plan
from fxprune.rewrite.emitted import DualGraphModule, SingleGraphModule, unavailable
from fxprune.rewrite.fixed_lengths import said
from fxprune.rewrite.site import Natural, numbers_for, rewritten
from fxprune.rewrite.slicing import sliced
from fxprune.rewrite.submodules import Parts, Surroundings

_QUOTABLE = re.compile(r'[^"\\\n\r\0\ud800-\udfff]*')


def emit(model: nn.Module, analysis: Analysis, plan: Plan) -> GraphModule:
    """The pruned GraphModule: the captured graph(s) over sliced copies of the modules.

    Raises:
        LiteralError: a call holds a size that cannot be rewritten.
        RuleError: an operator's literals failed.
        UnsupportedError: a name cannot stand in a graph's code.
    """
    captured = analysis.captured
    parts = Parts(model, plan)
    bound = arguments(model, (captured.inputs.args, dict(captured.inputs.kwargs)))
    graphs = {id(view.traced): _Rewriter(view, parts, bound).graph()
              for view in analysis.views(plan.channels, plan.branches)}
    evaluated = graphs[id(captured.modes["eval"])]
    trained = captured.modes.get("train")
    for graph in graphs.values():
        _check_names(graph)
    root, name = parts.root(), type(model).__name__
    if trained is captured.modes["eval"] and not captured.held:
        small = SingleGraphModule(root, evaluated, name, Marks.of(bound))
    else:
        training = graphs[id(trained)] if trained else unavailable(captured.why, evaluated)
        small = DualGraphModule(root, evaluated, training, name, Marks.of(bound), captured.held, model.training)
    _training_flags(model, small)
    return small


def _check_names(graph: Graph) -> None:
    """Torch writes a module's name between quotes as it stands, so that it must not end them."""
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr") and not _QUOTABLE.fullmatch(node.target):
            raise UnsupportedError(f"torch.fx writes names into the code of a graph, where {node.target!r} cannot "
                                   "stand: it holds a quote, a backslash, a line break or half a character; rename it")


def _training_flags(model: nn.Module, small: SingleGraphModule) -> None:
    """The mode that the model is in; modules that the user froze in another stay in that."""
    flags = {name: module.training for name, module in named_modules(model)}
    for name, module in named_modules(small):
        vars(module)["training"] = flags.get(name, model.training)
    small._switch(model.training)


class _Rewriter:
    """Rewrites one graph."""

    def __init__(self, view: View, parts: Parts, arguments: tuple[Argument, ...]):
        self.view, self.parts, self.arguments = view, parts, arguments
        self.new = Graph()
        self.nodes: dict[Node, Any] = {}
        self._by_ref: dict[int, tuple[Node, tuple[Any, ...]]] = {}
        self._values: dict[Any, Any] = {}

    def graph(self) -> Graph:
        traced = self.view.traced
        guards = _placed(traced.guards, self.view.determined)
        asserted = False
        for node in traced.graph.nodes:
            if node.op != "placeholder" and not asserted:
                asserted = True
                self._constants()
                self._fixed()
            if node.name in self.view.skipped.nodes:
                continue
            self._copy(node)
            for path, ref in self.view.refs(node.name).items():
                self._by_ref.setdefault(ref.id, (node, path))
        self._unused_sizes()
        self._guards(guards)
        return self.new

    def _unused_sizes(self) -> None:
        """A size whose place a number has taken goes; computed from what has shrunk it might not even be a number."""
        for node in reversed(self.view.traced.graph.nodes):
            if "size" in node.meta and node in self.nodes and not self.nodes[node].users:
                self.new.erase_node(self.nodes[node])

    def _copy(self, node: Node) -> None:
        if node.op == "placeholder":
            self.nodes[node] = self.new.node_copy(node)
            return
        if node.name in self.view.skipped.sums:
            self.nodes[node] = self._shortcut(node)
            return
        target, args, kwargs = self._spelled(node)
        for size in numbers_for(node, self.view, args, kwargs):
            held = Apply(operator.eq, (size, self.view.evaluate(size, natural=False)))
            self._asserted(Guard(held, True, node.meta.get("source", "")))
        if node.op == "call_module":
            target = self.parts.module(target, partial(self._around, node)) if target not in \
                self.view.traced.added else self._added(target)
        if node.op == "get_attr":
            self.nodes[node] = self._read(node, str(target))
            return
        args, kwargs = self._argument(args), self._argument(kwargs)
        self.nodes[node] = self._create(node, target, args, kwargs)

    def _shortcut(self, node: Node) -> Node:
        """In place of a sum what a branch was added to; a copy, where somebody writes into either of them later."""
        kept = [arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, Node)]
        del kept[self.view.skipped.sums[node.name]]
        shortcut: Node = self.nodes[kept[0]]
        if not written_later(self.view.traced, node, kept[0]):
            return shortcut
        return self.new.create_node("call_method", "clone", (shortcut,), name=node.name)

    def _read(self, node: Node, name: str) -> Node:
        """A parameter, a buffer, or a constant, as far as it is kept. One that is complex is held as pairs of real
        numbers: where the user casts the result, it would become a real one."""
        constant = self.view.traced.constants.get(name)
        if constant is None:
            self.parts.attribute(name)
            return self._create(node, name, (), {})
        keep = {d: mask.nonzero()[0] for d, mask in enumerate(self.view.masks(self.view.refs(node.name)[()]))
                if not mask.all()}
        kept = sliced(constant, keep)
        if not kept.is_complex():
            return self._create(node, self.parts.constant(name, kept), (), {})
        pairs = self.new.create_node("get_attr", self.parts.constant(name, torch.view_as_real(kept.resolve_conj())),
                                     name=f"{node.name}_pairs")
        return self.new.create_node("call_function", torch.view_as_complex, (pairs,), name=node.name)

    def _create(self, node: Node, target: Any, args: Any, kwargs: Any) -> Node:
        new = create_node(self.new, node.op, target, args, kwargs, node.name)
        new.meta.update((key, value) for key, value in node.meta.items() if key in ("source", "is_wrapped"))
        return new

    def _spelled(self, node: Node) -> tuple[Any, Any, Any]:
        """Target and arguments, sizes rewritten; sizes that stay natural are marked."""
        if "size" in node.meta:
            return node.target, *self._natural(node)
        return rewritten(node, self.view, self._constant)

    def _natural(self, node: Node) -> tuple[Any, Any]:
        def mark(n: Node) -> Any:
            return Natural(n) if "size" in n.meta else n

        return map_arg(node.args, mark), map_arg(node.kwargs, mark)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Natural):
            return self._recomputed(value)
        if isinstance(value, Node):
            return self._value(value) if "size" in value.meta else self.nodes.get(value, value)
        if isinstance(value, slice):
            return slice(*map(self._argument, (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._argument(item) for item in value]
            if hasattr(value, "_fields"):
                return type(value)(*items)
            return items if isinstance(value, list) else tuple(items)
        return value

    def _recomputed(self, value: Natural) -> Any:
        size = self.nodes[value.node]
        for function, number in ((operator.mul, value.times), (operator.floordiv, value.over)):
            if number != 1:
                size = self._expression(Apply(function, (size, number)))
        return size

    def _value(self, node: Node) -> Any:
        """A size that is used as a number keeps the original's, wherever the dimension that it reads has shrunk."""
        expression = node.meta["size"]
        if not any(self.view.shrinks(leaf) for leaf in leaves(expression)):
            return self.nodes[node]
        return self._expression(expression)

    def _expression(self, expression: Any) -> Any:
        key: Any
        if isinstance(expression, Dim):
            if expression not in self._values:
                self._values[expression] = self._length(expression)
            return self._values[expression]
        if not isinstance(expression, Apply):
            return expression
        args = tuple(map(self._expression, expression.args))
        if not any(isinstance(arg, Node) for arg in args):
            return expression.function(*args)
        key = (expression.function, args)
        if key not in self._values:
            self._values[key] = self._made("call_function", expression.function, args)
        return self._values[key]

    def _length(self, dim: Dim) -> Any:
        """As long as the dimension is in the original."""
        kept, total = self.view.ratio(dim)
        if self.view.determined(dim) or not kept:
            return self.view.evaluate(dim, natural=False)
        node, path = self._by_ref[dim.tensor]
        size = self.nodes[node]
        for item in path:
            size = self._made("call_function", operator.getitem, (size, item))
        size = self._made("call_method", "size", (size, dim.dim))
        for function, number in ((operator.mul, total), (operator.floordiv, kept)):
            size = size if number == 1 else self._made("call_function", function, (size, number))
        return size

    def _made(self, kind: str, target: Any, args: tuple[Any, ...]) -> Node:
        """A node that the captured graph does not have; its name must not be one of those to come."""
        return self.new.create_node(kind, target, args, name="kept_size")

    def _around(self, node: Node) -> Surroundings:
        first = next((arg for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, Node)), None)
        into = self.view.refs(first.name).get(()) if first is not None else None
        out = next(iter(self.view.refs(node.name).values()), None)
        return (self.view.masks(into) if into else []), (self.view.masks(out) if out else [])

    def _added(self, name: str) -> str:
        return self.parts.added(name, self.view.traced.added[name])

    def _constant(self, value: torch.Tensor, source: Node | None) -> Node:
        """An index table of the shrunken graph: a buffer's own place where it came from one, else a new constant."""
        if source is not None and source.op == "get_attr" and len(source.users) == 1:
            if self.parts.renumber(str(source.target), value):
                return self.nodes[source]
        return self.new.create_node("get_attr", self.parts.constant("_index", value))

    def _constants(self) -> None:
        """Ask, first of all, for what Python saw of the arguments, where that is more than a tensor."""
        nodes = {str(node.target).lstrip("*"): self.nodes[node] for node in self.nodes}
        asked = [a for a in self.arguments if not (
            isinstance(a.value, TensorSpec) and a.value.shape and a.default is EMPTY)]
        if asked:
            names = tuple(STARS.get(a.kind, "") + a.name for a in asked)
            check = self.new.call_function(as_captured, (
                names, tuple(nodes[a.name] for a in asked), tuple(pattern(a.effective) for a in asked),
                tuple(name for name, a in zip(names, asked, strict=True) if not a.given)))
            check.meta["is_wrapped"] = True

    def _fixed(self) -> None:
        """Assert, first of all, the lengths of the inputs' dimensions that the graph takes at no other."""
        for fixed in self.view.traced.fixed:
            size = self._expression(Dim(fixed.tensor, fixed.dim))
            if isinstance(size, Node):
                holds = self._made("call_function", operator.eq, (size, fixed.length))
                message = said(fixed.argument, fixed.dim, fixed.length, fixed.why)
                self.new.call_function(ASSERT, (holds, message))

    def _guards(self, guards: list[Guard]) -> None:
        """Assert what the graph took for granted, after everything that the facts read."""
        output = next(n for n in self.new.nodes if n.op == "output")
        with self.new.inserting_before(output):
            for guard in guards:
                if all(leaf.tensor in self._by_ref or self.view.determined(leaf) for leaf in leaves(guard.fact)):
                    self._asserted(guard)

    def _asserted(self, guard: Guard) -> None:
        fact = self._expression(guard.fact)
        if isinstance(fact, Node):
            holds = fact if guard.value is True else self.new.call_function(operator.eq, (fact, guard.value))
            message = f"fxprune: captured where {readable(guard.fact)} was {guard.value} " \
                      f"({line(guard.source)}); capture again for inputs of this size"
            self.new.call_function(ASSERT, (holds, message))


def _placed(guards: tuple[Guard, ...], determined: Any) -> list[Guard]:
    return [guard for guard in guards if any(not determined(leaf) for leaf in leaves(guard.fact))]
