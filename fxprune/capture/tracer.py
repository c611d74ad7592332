"""Trace a model into an ``fx.Graph`` by running it once.

The model runs on true tensors (on the meta device) under a ``TorchFunctionMode``. Every torch function that its Python
calls becomes a node, every leaf module a ``call_module``; parameters are found by identity. Since values are tensors
and not stand-ins, all Python works on them; sizes are ints that carry their expression (`fxprune.capture.sizes`).
"""

import dataclasses
import operator
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode

from fxprune.capture import attention
from fxprune.capture.observer import Observer
from fxprune.capture.sizes import Apply, Book, Dim, Fraction, Guard, Size, expression_of, plain, watched
from fxprune.capture.values import tensors_in
from fxprune.errors import CaptureError

_LIBRARY = tuple(os.path.dirname(os.path.abspath(m.__file__)) + os.sep for m in (torch,)) + (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, "<")
# Modules of torch.nn whose Python is entered: their parts are what is pruned.
_ENTERED = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder,
            nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)
_TENSOR_PROPERTIES = {"T", "mT", "H", "mH", "real", "imag"}
_LENGTHS = {"numel": None, "nelement": None, "__len__": 0}
_OPERATORS = {"__getitem__": operator.getitem, "__setitem__": operator.setitem, "__matmul__": operator.matmul,
              "__floordiv__": operator.floordiv, "__mod__": operator.mod, "__pow__": operator.pow,
              "__and__": operator.and_, "__or__": operator.or_, "__xor__": operator.xor,
              "__invert__": operator.invert, "__iadd__": operator.iadd, "__imul__": operator.imul}
_REVERSED = {"__rsub__": operator.sub, "__rpow__": operator.pow, "__rdiv__": operator.truediv,
             "__rtruediv__": operator.truediv, "__rfloordiv__": operator.floordiv, "__rmatmul__": operator.matmul,
             "__rmod__": operator.mod}


class Flag(int):
    """A module's ``training``, which notes that somebody asked: if nobody does, one graph serves both modes."""

    asked: list[bool]

    def __bool__(self) -> bool:
        self.asked.append(True)
        return bool(int.__index__(self))


class AutogradFunction(nn.Module):
    """A user's ``torch.autograd.Function`` as a module of the graph, so that its own backward stays."""

    def __init__(self, function: type[torch.autograd.Function]):
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function.apply(*args)


@dataclass
class Traced:
    """One graph and what was seen while it was made."""

    graph: Graph
    tape: Any
    guards: tuple[Guard, ...]
    constants: dict[str, torch.Tensor]
    functions: dict[str, nn.Module]
    tensors: dict[int, torch.Tensor]
    asked_training: bool
    output: Any = None


@dataclass
class _Origin:
    """The node that stands for an object, and the path of items inside that node's value."""

    value: Any
    node: Node
    path: tuple[Any, ...] = ()


@dataclass
class Tracer(TorchFunctionMode):
    """Traces ``root`` (a structural copy) on the given inputs.

    Args:
        root: the copy that is run; its parameters are on the meta device, or true ones where ``observer.real``.
        observer: writes the tape of the same run.
    """

    root: nn.Module
    observer: Observer
    graph: Graph = field(default_factory=Graph)

    def __post_init__(self) -> None:
        super().__init__()
        self.book = Book({}, where=lambda: self.observer.source)
        self.names = {id(m): name for name, m in self.root.named_modules(remove_duplicate=False)}
        self.names |= {id(m): name for name, m in self.root.named_modules()}
        tensors = [*self.root.named_parameters(remove_duplicate=False), *self.root.named_buffers(remove_duplicate=False)]
        self.states = {id(t): name for name, t in reversed(tensors)}
        self.constants: dict[str, torch.Tensor] = {}
        self.functions: dict[str, nn.Module] = {}
        self.asked: list[bool] = []
        self._origins: dict[int, _Origin] = {}
        self._sizes: dict[Any, Node] = {}
        self._dtypes: dict[torch.dtype, tuple[torch.Tensor, types.CodeType]] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._call = nn.Module.__call__

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str]) -> Traced:
        """Run the root; ``names`` are the placeholders of the flat positional and keyword arguments."""
        for name, value in zip(names, [*args, *kwargs.values()], strict=True):
            self._placeholder(name, value)
        with ExitStack() as stack:
            stack.enter_context(self._patched())
            stack.enter_context(self.observer)
            stack.enter_context(self)
            out = self._call(self.root, *args, **kwargs)
        self.graph.output(self._argument(out))
        return Traced(self.graph, self.observer.tape, tuple(self.book.guards.values()), self.constants, self.functions,
                      self._tensors, bool(self.asked), out)

    # -- what is called -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.book.muted:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self._property(func, args[0])
        if name in ("size", *_LENGTHS) and isinstance(args[0], torch.Tensor):
            return self._length(func, name, args, kwargs)
        start = self._start()
        bare = _bare(args)
        if name in ("__getitem__", "__setitem__"):
            bare = (bare[0], self._known_index(bare[1]), *bare[2:])
        out = self._run(lambda: func(*bare, **_bare(kwargs)))
        if name != "__setitem__" and not _tensors_in(out):
            return out
        kind, target, args = _spelling(func, name, args)
        self._claim(out, self._node(start, kind, target, args, kwargs), ())
        return out

    def _known_index(self, index: Any) -> Any:
        """Lists and arrays in an index as tensors of known contents; on the meta device they would lose them."""
        if isinstance(index, tuple):
            return tuple(map(self._known_index, index))
        numbers = isinstance(index, list) and index and all(isinstance(item, int) for item in index)
        if not numbers and not isinstance(index, np.ndarray):
            return index
        tensor = torch.tensor(index)
        if self.observer.real:
            self.observer.know(tensor, tensor.clone())
        return tensor

    def _module_call(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.book.muted or isinstance(module, AutogradFunction):
            return self._call(module, *args, **kwargs)
        if isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward:
            return attention.forward(module, *args, **kwargs)
        if not is_leaf(module) or id(module) not in self.names:
            return self._call(module, *args, **kwargs)
        return self._leaf(self.names[id(module)], lambda *a, **k: self._call(module, *a, **k), args, kwargs)

    def _leaf(self, target: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        def run() -> Any:
            with torch._C.DisableTorchFunction():
                return call(*_bare(args), **_bare(kwargs))

        start = self._start()
        out = self._run(run)
        self._claim(out, self._node(start, "call_module", target, args, kwargs), ())
        return out

    def _autograd(self, function: type[torch.autograd.Function], args: Any) -> Any:
        name = f"_function_{len(self.functions)}"
        module = self.functions[name] = AutogradFunction(function)
        return self._leaf(name, module.forward, args, {})

    def _start(self) -> int:
        """Where on the tape the coming call's operators begin."""
        frame = _user_frame()
        self.observer.source = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        return len(self.observer.tape.calls)

    def _run(self, call: Callable[[], Any]) -> Any:
        self.book.muted += 1
        try:
            return call()
        finally:
            self.book.muted -= 1

    # -- what is read ---------------------------------------------------------------------------------------------

    def _property(self, func: Any, tensor: torch.Tensor) -> Any:
        name = func.__self__.__name__
        if name == "shape":
            return self._shape(tensor)
        if name == "device":
            return self._device(tensor)
        if name == "data":
            return self.__torch_function__(torch.Tensor.detach, (), (tensor,))
        start = self._start()
        value = self._run(lambda: func(tensor))
        if name == "dtype":
            self._dtypes[value] = (tensor, _user_frame().f_code)
        if name not in _TENSOR_PROPERTIES:
            return value
        self._claim(value, self._node(start, "call_function", getattr, (tensor, name), {}), ())
        return value

    def _shape(self, tensor: torch.Tensor) -> torch.Size:
        with torch._C.DisableTorchFunction():
            shape = tensor.shape
        key = self._key(tensor)
        return torch.Size([self.book.size(n, Dim(key, d)) for d, n in enumerate(shape)])

    def _length(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        shape = self._shape(args[0])
        if name == "size":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if dim is None else shape[plain(dim)]
        if name == "__len__":
            return shape[0]
        total: Any = 1
        for n in shape:
            total = n * total
        return total

    def _device(self, tensor: torch.Tensor) -> torch.device:
        with torch._C.DisableTorchFunction():
            device = torch.device(str(tensor.device))
        self._origins[id(device)] = _Origin(device, None, (tensor, "device"))
        return device

    def _key(self, tensor: torch.Tensor) -> int:
        key = self.observer.ref(tensor).id
        self._tensors[key] = tensor
        return key

    # -- what is written ------------------------------------------------------------------------------------------

    def _placeholder(self, name: str, value: Any) -> None:
        node = self.graph.placeholder(name)
        self._claim(value, node, ())

    def _claim(self, value: Any, node: Node, path: tuple[Any, ...]) -> None:
        """``node`` stands for this value, and its items for the tensors inside."""
        if isinstance(value, torch.Tensor):
            self._origins[id(value)] = _Origin(value, node, path)
            self.observer.tape.nodes.setdefault(node.name, {})[path] = self.observer.ref(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._claim(item, node, (*path, key))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self._claim(item, node, (*path, index))

    def _node(self, start: int, kind: str, target: Any, args: Any, kwargs: Any) -> Node:
        """A node for the call whose operators stand on the tape since ``start``."""
        node = self.graph.create_node(kind, target, self._argument(tuple(args)), self._argument(dict(kwargs)))
        node.meta["source"] = self.observer.source
        calls = self.observer.tape.calls
        calls[start:] = [replace(call, node=node.name) for call in calls[start:]]
        return node

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor_node(value)
        if isinstance(value, (Size, Fraction)):
            return self._size_node(value.expression)
        if isinstance(value, Flag):
            self.asked.append(True)
            return bool(int.__index__(value))
        if isinstance(value, torch.device):
            return self._device_node(value)
        if isinstance(value, torch.dtype):
            return self._dtype_node(value)
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
        if _is_record(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
            return self.graph.call_function(type(value), (), self._argument(fields))
        if next(tensors_in(value), None) is not None:
            raise CaptureError(f"a {type(value).__name__} holds tensors, and a graph can only hold containers and "
                               "dataclasses")
        return value

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
            self.constants[name] = tensor
        if not self.observer.real and tensor.device.type != "meta":
            self.observer.adopt(tensor)
        node = self.graph.get_attr(name) if name in self.states.values() else self.graph.create_node("get_attr", name)
        self._origins[id(tensor)] = _Origin(tensor, node)
        self.observer.tape.nodes.setdefault(node.name, {})[()] = self.observer.ref(
            tensor if self.observer.real or tensor.device.type == "meta" else self.observer.adopt(tensor))
        return node

    def _item_node(self, origin: _Origin) -> Node:
        node = origin.node
        for depth, key in enumerate(origin.path):
            known = ("item", node.name, key)
            if known not in self._sizes:
                item = self._sizes[known] = self.graph.call_function(operator.getitem, (node, key))
                item.meta["source"] = node.meta.get("source", "")
            node = self._sizes[known]
            if depth == len(origin.path) - 1:
                self.observer.tape.nodes.setdefault(node.name, {})[()] = self.observer.ref(origin.value)
        self._origins[id(origin.value)] = _Origin(origin.value, node)
        return node

    def _size_node(self, expression: Any) -> Any:
        if isinstance(expression, Dim):
            tensor = self._tensors[expression.tensor]
            node = self._sizes.get(expression) or self.graph.call_method(
                "size", (self._tensor_node(tensor), expression.dim))
        elif isinstance(expression, Apply):
            node = self._sizes.get(expression) or self.graph.call_function(
                expression.function, tuple(map(self._size_node, expression.args)))
        else:
            return expression
        node.meta["size"] = expression
        self._sizes[expression] = node
        return node

    def _device_node(self, device: torch.device) -> Any:
        origin = self._origins.get(id(device))
        if origin is None:
            return device
        return self._cached(("device", id(device)), lambda: (getattr, (self._tensor_node(origin.path[0]), "device")))

    def _dtype_node(self, dtype: torch.dtype) -> Any:
        """A dtype is a node where it was read from a tensor in a function that is still running."""
        tensor, code = self._dtypes.get(dtype, (None, None))
        if tensor is None or not any(frame.f_code is code for frame in _frames()):
            return dtype
        return self._cached(("dtype", id(tensor)), lambda: (getattr, (self._tensor_node(tensor), "dtype")))

    def _cached(self, key: Any, make: Callable[[], tuple[Any, Any]]) -> Node:
        if key not in self._sizes:
            function, args = make()
            self._sizes[key] = self.graph.call_function(function, args)
        return self._sizes[key]

    # -- surroundings ---------------------------------------------------------------------------------------------

    @contextmanager
    def _patched(self) -> Iterator[None]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module_call(module, args, kwargs)

        # The class method as it is defined, to be bound to whichever function is applied.
        apply = next(vars(c)["apply"] for c in torch.autograd.Function.__mro__ if "apply" in vars(c))

        def applied(function: Any, *args: Any, **kwargs: Any) -> Any:
            if self.book.muted or kwargs:
                return apply.__get__(None, function)(*args, **kwargs)
            return self._autograd(function, args)

        for module in self.root.modules():
            if not is_leaf(module):
                flag = Flag(module.training)
                flag.asked = self.asked
                module.__dict__["training"] = flag
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with mock.patch.object(nn.Module, "__call__", call), \
                    mock.patch.object(torch.autograd.Function, "apply", classmethod(applied)), \
                    mock.patch.object(nn.functional, "_verify_batch_size", lambda size: None), \
                    torch.inference_mode(), watched(self.book):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module in self.root.modules():
                module.__dict__["training"] = bool(int.__index__(module.__dict__["training"]))


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one node: those of ``torch.nn`` that hold no other modules' logic, and scripted ones."""
    if isinstance(module, torch.jit.ScriptModule):
        return True
    return type(module).__module__.startswith(("torch.nn.modules", "torch.ao.nn")) and not isinstance(module, _ENTERED)


def _spelling(func: Any, name: str, args: Any) -> tuple[str, Any, Any]:
    """How the call is written in the graph: a method, an operator or a function."""
    if name in _OPERATORS:
        return "call_function", _OPERATORS[name], args
    if name in _REVERSED:
        return "call_function", _REVERSED[name], (args[1], args[0])
    if getattr(torch.Tensor, name, None) is func or isinstance(func, types.MethodDescriptorType):
        return "call_method", name, args
    return "call_function", func, args


def _bare(tree: Any) -> Any:
    """Arguments as the operator takes them: plain numbers instead of sizes."""
    if isinstance(tree, (Size, Fraction)):
        return plain(tree)
    if isinstance(tree, Flag):
        return bool(int.__index__(tree))
    if isinstance(tree, dict) and type(tree) is dict:
        return {key: _bare(item) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*map(_bare, (tree.start, tree.stop, tree.step)))
    if type(tree) in (list, tuple):
        return type(tree)(map(_bare, tree))
    if isinstance(tree, torch.Size):
        return torch.Size(map(_bare, tree))
    return tree


def _tensors_in(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, dict):
        return any(map(_tensors_in, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_tensors_in, value))


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _frames() -> Iterator[types.FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _user_frame() -> types.FrameType:
    """The innermost frame that belongs neither to torch nor to fxprune."""
    for frame in _frames():
        if not frame.f_code.co_filename.startswith(_LIBRARY):
            return frame
    return sys._getframe(1)
