"""Write what a traced model does into a graph: which node stands for which tensor, size, device or dtype."""

import dataclasses
import operator
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, Node

from fxprune.capture.call_forms import PLAIN, frames, is_record
from fxprune.capture.dispatch import outside_modes
from fxprune.capture.graph_nodes import create_node
from fxprune.capture.model_walk import named_tensors
from fxprune.capture.objects import taken_apart
from fxprune.capture.observer import Observer
from fxprune.capture.sizes import Apply, Attribute, Dim, Fraction, Size, line
from fxprune.capture.torch_functions import ASSERT
from fxprune.errors import CaptureError
from fxprune.ir.tape import Call, refs
from fxprune.ir.trees import tensors_in


@dataclass
class Origin:
    """The node that stands for an object, and the path of items inside that node's value."""

    value: Any
    node: Node
    path: tuple[Any, ...] = ()


class Writer:
    """The graph and the nodes that stand for what was seen so far.

    Args:
        root: whose parameters and buffers are known by identity.
        observer: writes the tape of the same run.
        graph: is written into.
    """

    def __init__(self, root: nn.Module, observer: Observer, graph: Graph):
        super().__init__()
        self.root, self.observer, self.graph = root, observer, graph
        self.states = {id(t): name for name, t in reversed(list(named_tensors(root)))}
        self.constants: dict[str, torch.Tensor] = {}
        self.unseen: dict[str, str] = {}
        self.added: dict[str, nn.Module] = {}  # modules of the graph that the model does not have
        self.returning = False
        self._origins: dict[int, Origin] = {}
        self._devices: dict[int, tuple[torch.device, torch.Tensor]] = {}  # those that were read from a tensor
        self._called: dict[str, int] = {}
        self._sizes: dict[Any, Node] = {}
        self._dtypes: dict[torch.dtype, tuple[torch.Tensor, types.CodeType]] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def _claim(self, value: Any, node: Node, path: tuple[Any, ...]) -> None:
        """``node`` stands for this value, and its items for the tensors inside."""
        if isinstance(value, torch.Tensor):
            self._origins[id(value)] = Origin(value, node, path)
            self.observer.tape.nodes.setdefault(node.name, {})[path] = self.observer.ref(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._claim(item, node, (*path, key))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self._claim(item, node, (*path, index))

    def _node(self, start: int, kind: str, target: Any, args: Any, kwargs: Any) -> Node:
        """A node for the call whose operators stand on the tape since ``start``."""
        node = create_node(self.graph, kind, target, self._argument(tuple(args)), self._argument(kwargs))
        node.meta["source"] = self.observer.source
        if kind == "call_module":  # nodes that nobody reads go, and the module is still called for them
            node.meta["call"] = self._called[target] = self._called.get(target, -1) + 1
        calls = self.observer.tape.calls
        calls[start:] = [Call(c.op, c.overload, c.args, c.kwargs, c.outs, node.name, c.source) for c in calls[start:]]
        return node

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor_node(value)
        if type(value) in PLAIN:
            return value
        if isinstance(value, (Size, Fraction)):
            return self._size_node(value.expression)
        if isinstance(value, torch.device):
            return self._device_node(value)
        if isinstance(value, torch.dtype):
            return self._dtype_node(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        if isinstance(value, torch.Generator):
            raise CaptureError(f"the model draws numbers with its own torch.Generator ({self.observer.source}), which "
                               "a graph cannot hold; draw them without generator=")
        if isinstance(value, slice):
            return slice(*map(self._argument, (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self._argument, value)) if type(value).__module__ != "torch.return_types" \
                else tuple(map(self._argument, value))
        if isinstance(value, (list, tuple)):
            items = [self._argument(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if is_record(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return self.graph.call_function(type(value), (), self._argument(fields))
        if next(tensors_in(value), None) is not None:
            return self._object(value)
        return value

    def _object(self, value: Any) -> Node:
        if not self.returning:
            raise CaptureError(f"a {type(value).__name__} holds tensors, and a call in a graph can only be given "
                               "containers and dataclasses")
        name = f"_object_{len(self.added)}"
        self.added[name], leaves = taken_apart(value)
        return self.graph.create_node("call_module", name, self._argument(tuple(leaves)))

    def _dict(self, value: dict[Any, Any]) -> Any:
        items = {key: self._argument(item) for key, item in value.items()}
        if type(value) is dict or not hasattr(type(value), "__dataclass_fields__"):
            return items
        return self.graph.call_function(type(value), (), items)

    def _tensor_node(self, tensor: torch.Tensor) -> Node:
        origin = self._origins.get(id(tensor))
        if origin is not None:
            return self._item_node(origin)
        name = self.states.get(id(tensor))
        if name is None:
            name = f"_constant_{len(self.constants)}"
            self.constants[name] = self._contents(name, tensor)
        stray = not self.observer.real and not _is_meta(tensor)
        if stray:
            self.observer.adopt(tensor)
        node = self.graph.get_attr(name) if name in self.states.values() else self.graph.create_node("get_attr", name)
        self._origins[id(tensor)] = Origin(tensor, node)
        self.observer.tape.nodes.setdefault(node.name, {})[()] = self.observer.ref(
            self.observer.adopt(tensor) if stray else tensor)
        return node

    def _contents(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that was there before, or that is known, is a constant; one that was computed unseen is none, which
        matters where it is of use: weights that a forward makes may be replaced by those of another layer."""
        known = self.observer.known(tensor)
        if known is not None:
            return known
        number = self.observer.ref(tensor).id
        if _is_meta(tensor) or any(ref.id == number for call in self.observer.tape.calls for ref in refs(call.outs)):
            self.unseen[name] = ("a tensor is used that was computed out of the tracer's sight, as by a hook of a "
                                 f"layer of torch.nn (at {self.observer.source})")
        return tensor

    def _asserted(self, tensor: torch.Tensor, value: Any) -> None:
        """Python has read ``value`` of a tensor, and went the way of finite values."""
        assert self.observer.finiteness is not None, "only then anything is assumed"
        self.observer.finiteness.asked = False
        holds = self.graph.call_function(operator.eq, (self._tensor_node(tensor), value))
        self.graph.call_function(ASSERT, (holds, "fxprune: captured where all values are finite, which the model asks "
                                          f"for ({line(self.observer.source)}); they overflow here"))

    def _checked(self, tensor: torch.Tensor) -> torch.Tensor:
        """``torch._check_tensor_all``: the graph asserts what the model checks, and goes on as the model does."""
        holds = self.graph.call_method("all", (self._tensor_node(tensor),))
        self.graph.call_function(ASSERT, (holds, "fxprune: captured where a check of the model's own holds "
                                          f"({line(self.observer.source)}), and it fails here"))
        with outside_modes():
            value = tensor.all() if self.observer.real else torch.ones((), dtype=torch.bool)
        if not self.observer.real:
            return self.observer.adopt(value)
        self.observer.know(value, value)
        return value

    def _item_node(self, origin: Origin) -> Node:
        node = origin.node
        for depth, key in enumerate(origin.path):
            known = ("item", node.name, key)
            if known not in self._sizes:
                item = self._sizes[known] = self.graph.call_function(operator.getitem, (node, key))
                item.meta["source"] = node.meta.get("source", "")
            node = self._sizes[known]
            if depth == len(origin.path) - 1:
                self.observer.tape.nodes.setdefault(node.name, {})[()] = self.observer.ref(origin.value)
        self._origins[id(origin.value)] = Origin(origin.value, node)
        return node

    def _size_node(self, expression: Any) -> Any:
        if isinstance(expression, Dim):
            tensor = self._tensors[expression.tensor]
            node = self._sizes.get(expression) or self.graph.call_method(
                "size", (self._tensor_node(tensor), expression.dim))
        elif isinstance(expression, Apply):
            node = self._sizes.get(expression) or self.graph.call_function(
                expression.function, tuple(map(self._size_node, expression.args)))
        elif isinstance(expression, Attribute):
            node = self._sizes.get(expression) or self.graph.create_node(
                "call_function", expression, name="attribute")
        else:
            return expression
        node.meta["size"] = expression
        self._sizes[expression] = node
        return node

    def _device_node(self, device: torch.device) -> Any:
        if id(device) not in self._devices:
            return device
        _, tensor = self._devices[id(device)]
        return self._cached(("device", id(device)), lambda: (getattr, (self._tensor_node(tensor), "device")))

    def _dtype_node(self, dtype: torch.dtype) -> Any:
        """A dtype is a node where it was read from a tensor in a function that is still running."""
        tensor, code = self._dtypes.get(dtype, (None, None))
        if tensor is None or not any(frame.f_code is code for frame in frames()):
            return dtype
        node = self._cached(("dtype", id(tensor)), lambda: (getattr, (self._tensor_node(tensor), "dtype")))
        node.meta["dtype"] = dtype
        return node

    def _cached(self, key: Any, make: Callable[[], tuple[Any, Any]]) -> Node:
        if key not in self._sizes:
            function, args = make()
            self._sizes[key] = self.graph.call_function(function, args)
        return self._sizes[key]


def _is_meta(tensor: torch.Tensor) -> bool:
    """Where it is in truth; while a model is traced, it is told of the device that its own tensors are on."""
    with torch._C.DisableTorchFunction():
        return tensor.is_meta
