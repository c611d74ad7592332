"""A graph as the statements of a ``forward`` that a person would write.

A value takes over the name of an input that it is the last to use (``x = self.conv1(x)``), which also lets go of that
input's memory; otherwise it gets the first name that is free.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.fx import Graph, Node

from fxprune.artefacts.assertions import assertions
from fxprune.artefacts.source_values import bracketed, function, is_name, literal
from fxprune.capture.constant_arguments import as_captured
from fxprune.capture.contexts import CONTEXTS, enter_autocast, enter_inference, exit_region, switch_grad
from fxprune.capture.torch_functions import ASSERT
from fxprune.errors import UnsupportedError

_INFIX = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//",
          operator.mod: "%", operator.pow: "**", operator.matmul: "@", operator.and_: "&", operator.or_: "|",
          operator.xor: "^", operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=",
          operator.gt: ">", operator.ge: ">="}
_LETTERS = ("x", "y", "z", "u", "v", "w")
# Letters of arguments that still go on one line.
_LONG = 80
# Names that the file uses itself.
_TAKEN = {"self", "torch", "nn", "F", "math", "operator", "Path", "load_file", "Parts", "Model", "load"}


@dataclass
class Statements:
    """Writes one graph.

    Args:
        graph: of an emitted module.
        reach: the expression for a part of the module.
        tuples: is told the named tuples that the file must define: name -> fields.
    """

    graph: Graph
    reach: Callable[[str], str]
    tuples: dict[str, tuple[str, ...]]
    names: dict[Node, str] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _free: list[str] = field(default_factory=list)
    _last: dict[Node, list[Node]] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The names of the graph's inputs.

        Raises:
            UnsupportedError: one of them is no name.
        """
        found = []
        for node in self.graph.nodes:
            if node.op == "placeholder":
                name = str(node.target).lstrip("*")
                if not is_name(name) or name in _TAKEN:
                    raise UnsupportedError(f"standalone source cannot have an argument called {name!r}")
                found.append(str(node.target) + (f"={literal(node.args[0])}" if node.args else ""))
                self.names[node] = name
                self._used.add(name)
        return found

    def lines(self) -> Iterator[str]:
        """The statements, without indentation; an empty line and a comment where another block begins."""
        self._find_last_uses()
        block = ""
        for node in self.graph.nodes:
            if node.op == "call_module":
                now = _block(str(node.target))
                if now and now != block:
                    yield ""
                    yield f"# {now}"
                block = now
            if node.op == "output":
                several = type(node.args[0]) is tuple and len(node.args[0]) > 1
                yield f"return {self._index(node.args[0]) if several else self._value(node.args[0])}"
            elif node.op not in ("placeholder", "get_attr"):
                yield from self._statement(node)

    def _find_last_uses(self) -> None:
        last: dict[Node, Node] = {}
        for node in self.graph.nodes:
            for used in node.all_input_nodes:
                last[used] = node
        for used, node in last.items():
            if used.op != "get_attr":
                self._last.setdefault(node, []).append(used)

    def _statement(self, node: Node) -> Iterator[str]:
        dying = self._last.get(node, [])
        if node.op == "call_function" and node.target in CONTEXTS:
            yield from self._context(node)
        elif node.op == "call_function" and node.target is as_captured:
            yield from self._assertions(*node.args)
        elif node.op == "call_function" and node.target is operator.setitem:
            if node.users:
                raise UnsupportedError("standalone source cannot use the value of an assignment")
            yield f"{self._operand(node.args[0])}[{self._index(node.args[1])}] = {self._value(node.args[2])}"
        else:
            text = self._call(node)
            yield f"{self._name(node, dying)} = {text}" if node.users else text
        for used in dying:
            name = self.names[used]
            if name != self.names.get(node) and name not in self._free:
                self._free.append(name)

    def _context(self, node: Node) -> Iterator[str]:
        """``torch.no_grad``, ``torch.inference_mode`` and ``torch.autocast`` begin and end as calls of their own."""
        values = list(map(self._value, node.args))
        if node.target is exit_region:
            yield f"{values[0]}.__exit__(None, None, None)"
        elif node.target in (enter_autocast, enter_inference):
            name, kind = self._name(node, []), "autocast" if node.target is enter_autocast else "inference_mode"
            yield f"{name} = torch.{kind}({', '.join(values[:-1])})"
            yield f"{name}.__enter__()"
        else:
            if node.target is switch_grad and node.users:
                yield f"{self._name(node, [])} = torch.is_grad_enabled()"
            yield f"torch.set_grad_enabled({values[0]})"

    def _assertions(self, names: Any, nodes: Any, wanted: Any, left_out: Any) -> Iterator[str]:
        for name, value, want in zip(names, map(self._value, nodes), wanted, strict=True):
            yield from assertions(name, value, want, name in left_out)

    def _name(self, node: Node, dying: list[Node]) -> str:
        if _is_number(node):
            name = self._fresh(("n",))
        else:
            kept = [self.names[used] for used in node.all_input_nodes if used in dying and self._may_be_reused(used)]
            free = [name for name in self._free if name.rstrip("0123456789") in _LETTERS]
            name = kept[0] if kept else free[0] if free else self._fresh(_LETTERS)
        if name in self._free:
            self._free.remove(name)
        self.names[node] = name
        return name

    def _may_be_reused(self, node: Node) -> bool:
        """A tensor's name that says nothing; the arguments' own names do, but for the first one's."""
        return not _is_number(node) and (node.op != "placeholder" or node is next(iter(self.graph.nodes)))

    def _fresh(self, letters: tuple[str, ...]) -> str:
        k = 0
        while True:
            for letter in letters:
                name = f"{letter}{k or ''}"
                if name not in self._used and name not in _TAKEN:
                    self._used.add(name)
                    return name
            k += 1

    # -- expressions ----------------------------------------------------------------------------------------------

    def _call(self, node: Node) -> str:
        args, kwargs = node.args, node.kwargs
        if node.op == "call_module":
            return f"{self.reach(str(node.target))}({self._listed(args, kwargs)})"
        if node.op == "call_method":
            return f"{self._operand(args[0])}.{node.target}({self._listed(args[1:], kwargs)})"
        if node.op != "call_function":
            raise UnsupportedError(f"standalone source cannot hold a node of the kind {node.op!r}")
        if node.target in _INFIX and len(args) == 2 and not kwargs:
            return f"{self._operand(args[0])} {_INFIX[node.target]} {self._operand(args[1])}"
        if node.target is operator.getitem:
            return f"{self._operand(args[0])}[{self._index(args[1])}]"
        if node.target is getattr and len(args) == 2 and is_name(str(args[1])):
            return f"{self._operand(args[0])}.{args[1]}"
        if node.target is operator.neg:
            return f"-{self._operand(args[0])}"
        return f"{function(node.target)}({self._listed(args, kwargs)})"

    def _listed(self, args: Any, kwargs: Any) -> str:
        items = [*map(self._value, args), *(f"{key}={self._value(item)}" for key, item in kwargs.items())]
        if sum(map(len, items)) < _LONG:
            return ", ".join(items)
        return "".join(f"\n    {item}," for item in items) + "\n"

    def _operand(self, value: Any) -> str:
        text = self._value(value)
        return text if isinstance(value, (Node, int)) and not text.startswith("-") else f"({text})"

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(map(self._item, value)) + ("," if len(value) == 1 else "")
        return self._item(value)

    def _item(self, value: Any) -> str:
        if not isinstance(value, slice):
            return self._value(value)
        start, stop, step = ("" if part is None else self._value(part)
                             for part in (value.start, value.stop, value.step))
        return f"{start}:{stop}" + (f":{step}" if step else "")

    def _value(self, value: Any) -> str:
        if isinstance(value, Node):
            return self.reach(str(value.target)) if value.op == "get_attr" else self.names[value]
        if isinstance(value, slice):
            return f"slice({', '.join(map(self._value, (value.start, value.stop, value.step)))})"
        if isinstance(value, dict) and type(value).__name__ in ("dict", "immutable_dict"):
            return "{" + ", ".join(f"{literal(key)}: {self._value(item)}" for key, item in value.items()) + "}"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._named(type(value).__name__, tuple(value._fields), value)
        if isinstance(value, (tuple, list)) and type(value).__name__ in ("tuple", "list", "immutable_list", "Size"):
            return bracketed(value, map(self._value, value))
        return literal(value)

    def _named(self, name: str, fields: tuple[str, ...], value: Any) -> str:
        """A named tuple, of a class of the same name and fields."""
        if not is_name(name) or name in _TAKEN or self.tuples.setdefault(name, fields) != fields:
            raise UnsupportedError(f"standalone source cannot define the named tuple {name!r}")
        return f"{name}({', '.join(f'{key}={self._value(item)}' for key, item in zip(fields, value, strict=True))})"


def _block(target: str) -> str:
    """What a layer's name shares with its neighbours', up to the first number.

    >>> _block("conv1"), _block("layer1.0.conv2"), _block("encoder.block_3.mlp.0"), _block("head.fc")
    ('', 'layer1.0', 'encoder.block_3', 'head')
    """
    parts = target.split(".")[:-1]
    end = next((k for k, part in enumerate(parts) if k and part[-1:].isdecimal()), 0)
    return ".".join(parts[:end + 1])


def _is_number(node: Node) -> bool:
    """Whether a node is a size, or computed from sizes only."""
    if node.op == "call_method":
        return node.target in ("size", "numel", "dim")
    if node.op != "call_function" or node.target in CONTEXTS or node.target is getattr:
        return False
    inputs = node.all_input_nodes
    return node.target is not ASSERT and bool(inputs) and all(map(_is_number, inputs)) and not (
        getattr(node.target, "__module__", "") or "").startswith("torch")
