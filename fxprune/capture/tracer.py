"""Trace a model into an ``fx.Graph`` by running it once.

The model runs on true tensors (on the meta device) under a ``TorchFunctionMode``. Every torch function that its Python
calls becomes a node, every leaf module a ``call_module``; parameters are found by identity. Since values are tensors
and not stand-ins, all Python works on them; sizes are ints that carry their expression (`fxprune.capture.sizes`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import _disable_current_modes

from fxprune.capture.call_forms import bare, frames, holds_tensors, is_leaf, spelling, user_frame, user_line
from fxprune.capture.call_signature import placeholder
from fxprune.capture.contexts import UNCHECKED, recorded_regions, restore_grad, switch_grad
from fxprune.capture.hooks import hooked
from fxprune.capture.message_texts import UNKNOWN, in_message
from fxprune.capture.model_walk import named_modules
from fxprune.capture.multihead import WRITTEN_OUT
from fxprune.capture.observer import Observer
from fxprune.capture.patches import APPLY, BATCH_SIZE, MODULE_CALL, OVERRIDDEN, TRAINING, instead, replaced
from fxprune.capture.sizes import Book, Dim, plain
from fxprune.capture.skipping import is_call
from fxprune.capture.traced import AutogradFunction, Traced
from fxprune.capture.writer import Writer
from fxprune.errors import CaptureError
from fxprune.ir.call_arguments import arguments
from fxprune.ir.tape import refs, writes

# Functions of torch whose Python holds sizes.
_ENTERED_FUNCTIONS = {nn.functional.multi_head_attention_forward}
_TENSOR_PROPERTIES = {"T", "mT", "H", "mH", "real", "imag"}
_DEVICES = {f"is_{kind}": kind for kind in ("cpu", "cuda", "meta", "mps", "xpu")}
# What reads contents without an operator.
_READS = {"numpy", "tolist", "__array__", "__dlpack__"}
# What reads contents to check them, or to say what they are.
_CHECKING = {"_is_all_true", "__format__", "__repr__"}
_LENGTHS = {"numel": None, "nelement": None, "__len__": 0}
# Our own Python, as that of attention, uses sizes as sizes only.
_OURS = os.path.dirname(__file__) + os.sep


class Tracer(Writer, TorchFunctionMode):
    """Traces ``root`` (a structural copy) on the given inputs.

    Args:
        root: the copy that is run; its parameters are on the meta device, or true ones where ``observer.real``.
        observer: writes the tape of the same run.
        device: where the model's tensors are, which its Python may ask for.
    """

    def __init__(self, root: nn.Module, observer: Observer, device: torch.device):
        super().__init__(root, observer, Graph())
        self.device = device
        self.book = Book({}, where=user_line, data=lambda leaf: (leaf.tensor, leaf.dim) in observer.unsteady)
        self.modules = {name: module for name, module in reversed(list(named_modules(root)))}
        self.names = {id(module): name for name, module in self.modules.items()}  # the first name of each
        self._call = MODULE_CALL.original
        self._regions: list[tuple[bool, Node]] = []
        self.asked = False  # by the model's Python, in which mode it is
        self._handed_out = False  # a size that inputs may decide on, to the model's Python

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
        """Run the root."""
        for argument in arguments(self.root, (args, kwargs)):
            node = placeholder(self.graph, argument)
            if argument.given:
                self._claim(argument.value, node, ())
        buffers = self._buffers()
        if self.observer.draws:
            nodes = self.graph.nodes  # not `self`: it holds the observer
            self.observer.draws.here = lambda: sum(map(is_call, nodes))
        with ExitStack() as stack:
            stack.enter_context(self._patched())
            stack.enter_context(self.observer)
            stack.callback(setattr, self.observer, "direct", self.observer.direct)  # else they hold each other
            self.observer.direct = self._direct
            stack.enter_context(self)
            out = self._call(self.root, *args, **kwargs)
            self._assigned(buffers)
        self.returning = True
        self.graph.output(self._argument(out))
        traced = self.traced(out)
        self.book.close()
        return traced

    def traced(self, out: Any = None) -> Traced:
        """What was traced so far."""
        return Traced(self.graph, self.observer.tape, tuple(self.book.guards.values()), self.constants, self.added,
                      self._tensors, self.asked, out, tuple(self.book.read), self._handed_out,
                      any(self.observer.unsteady.dims.values()), unseen=self.unseen)

    def _buffers(self) -> dict[tuple[nn.Module, str], torch.Tensor]:
        """The buffers of all modules whose Python is traced."""
        return {(module, name): buffer for module in self.modules.values() if not is_leaf(module)
                for name, buffer in module._buffers.items() if buffer is not None}

    def _assigned(self, before: dict[tuple[nn.Module, str], torch.Tensor]) -> None:
        """A buffer that forward replaced by another tensor is written into at the end of the graph."""
        for (module, name), buffer in before.items():
            now = module._buffers.get(name)
            if now is buffer or isinstance(now, torch.Tensor) and self.observer.known(now) is not None:
                continue  # as it was, or a cached table, which the graph computes whenever it needs it
            if not isinstance(now, torch.Tensor) or now.shape != buffer.shape or now.dtype != buffer.dtype:
                raise CaptureError(f"forward replaces the buffer {name!r} by something of another shape or dtype")
            buffer.copy_(now.detach())

    # -- what is called -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.book.muted:
            return func(*args, **kwargs)
        if func in _ENTERED_FUNCTIONS:
            with self, replaced({OVERRIDDEN: instead(lambda tensors: False)}):
                return func(*args, **kwargs)
        if any(isinstance(arg, np.ndarray) for arg in args) and not holds_tensors(args):
            return self._from_array(func, args, kwargs)
        if func is torch._C._set_grad_enabled:
            return self._grad_mode(*args)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self._property(func, args[0])
        if name in _CHECKING and self.observer.known(args[0]) is None:
            self._start()
            return self._checked(args[0]) if name == "_is_all_true" else self._text(name)
        if name in ("size", *_LENGTHS) and isinstance(args[0], torch.Tensor):
            return self._length(func, name, args, kwargs)
        start = self._start()
        if self.observer.real:
            self.observer.unsteady.given = self.book.decided_by_data((args, kwargs))
        plain_args = bare(args)
        if name in ("__getitem__", "__setitem__"):
            plain_args = (plain_args[0], self._known_index(plain_args[1]), *plain_args[2:])
        self.observer.writing = name == "__setitem__"
        out = self._run(lambda: func(*plain_args, **bare(kwargs)))
        if name in _READS and self.observer.known(args[0]) is None:
            raise self._steered(name)
        if self.observer.finiteness and self.observer.finiteness.asked:
            self._asserted(args[0], out)
        if name != "__setitem__" and not holds_tensors(out) and not any(map(writes, self.observer.tape.calls[start:])):
            return out
        kind, target, args = spelling(func, name, args)
        return self._made(out, start, kind, target, args, kwargs)

    def _text(self, name: str) -> str:
        """What a tensor looks like in a message, whatever it holds."""
        if not in_message(user_frame()):
            raise self._steered(name)
        return UNKNOWN

    def _steered(self, name: str) -> CaptureError:
        return CaptureError(f"the model reads a tensor's contents in Python ({name} at {self.observer.source}), so "
                            "that its graph depends on the data")

    def _direct(self, record: Callable[..., Any], func: Any, args: Any, kwargs: Any) -> Any:
        """An operator that no function of torch was called for: a scripted function's, a constructor's."""
        if self.book.muted:
            return record(func, args, kwargs)
        start = self._start()
        out = self._run(lambda: record(func, args, kwargs))
        if not holds_tensors(out) and not any(map(writes, self.observer.tape.calls[start:])):
            return out
        return self._made(out, start, "call_function", func, args, kwargs)

    def _made(self, out: Any, start: int, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """What a call gave, with the node that stands for it."""
        node = self._node(start, kind, target, args, kwargs)
        out = self._distinct(out, start)
        self._claim(out, node, ())
        return out

    def _distinct(self, out: Any, start: int) -> Any:
        """``x.float()`` and dropout in inference mode may give ``x`` itself, which must not become their result: in
        another dtype or mode they are two. An operator in place is different: what it gives is ``x`` from now on."""
        if type(out) in (tuple, list):
            return type(out)(self._distinct(item, start) for item in out)
        if not isinstance(out, torch.Tensor) or (id(out) not in self._origins and id(out) not in self.states):
            return out
        number = self.observer.ref(out).id
        written = any(number in {ref.id for ref in refs(call.outs)} for call in self.observer.tape.calls[start:]
                      if call.op.endswith("_") or "out" in call.overload)
        return out if written else self.observer.alias(out)

    def _from_array(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A tensor made of an array is a constant; whatever operators make it stand on the tape all the same."""
        self._run(lambda: func(*args, **kwargs))
        with _disable_current_modes():
            value = func(*args, **kwargs)
        return value if self.observer.real or not isinstance(value, torch.Tensor) else self.observer.adopt(value)

    def _known_index(self, index: Any) -> Any:
        """Lists in an index as tensors of known contents; on the meta device they would lose them."""
        if isinstance(index, tuple):
            return tuple(map(self._known_index, index))
        numbers = isinstance(index, list) and index and all(isinstance(item, int) for item in index)
        if not numbers:
            return index
        index = np.asarray(index)
        with _disable_current_modes():
            tensor = torch.tensor(np.flatnonzero(index) if index.dtype == bool and index.ndim == 1 else index)
        if not self.observer.real:
            return self.observer.adopt(tensor)
        self.observer.know(tensor, tensor)
        return tensor

    def _grad_mode(self, enabled: bool) -> None:
        """Leaving a region restores what was found on entering it, at run time: the caller may have switched too."""
        before = torch.is_grad_enabled()
        if self._regions and self._regions[-1][0] == enabled != before:
            self._context(restore_grad, self._regions.pop()[1])
        elif enabled != before:
            self._regions.append((before, self._context(switch_grad, enabled)))
        torch._C._set_grad_enabled(enabled)

    def _context(self, function: Callable[..., Any], *args: Any) -> Node:
        """A call that encloses those after it; see `fxprune.capture.contexts`."""
        unused = next((node for node in self.graph.nodes if node.op == "placeholder"), None)
        node = self.graph.call_function(function, (*args, unused))
        node.meta["is_wrapped"] = True
        return node

    def _module_call(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.book.muted or isinstance(module, AutogradFunction):
            return self._call(module, *args, **kwargs)
        if not is_leaf(module) or id(module) not in self.names or not self._holds_its_own(module):
            return self._call(module, *args, **kwargs)
        return self._leaf(self.names[id(module)], lambda *a, **k: self._call(module, *a, **k), args, kwargs)

    def _holds_its_own(self, module: nn.Module) -> bool:
        """Under ``functional_call`` a module runs on tensors that were computed, which no node of a module would."""
        tensors = (*module._parameters.values(), *module._buffers.values())
        return all(tensor is None or id(tensor) in self.states for tensor in tensors)

    def _leaf(self, target: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        def run() -> Any:
            with torch._C.DisableTorchFunction():
                return call(*bare(args), **bare(kwargs))

        start = self._start()
        out = self._run(run)
        return self._made(out, start, "call_module", target, args, kwargs)

    def _autograd(self, function: type[torch.autograd.Function], args: Any) -> Any:
        if any(callable(arg) and not isinstance(arg, torch.Tensor) for arg in args):
            raise CaptureError(f"the autograd function {function.__name__} calls a function that it is given")
        name = f"_function_{len(self.added)}"
        module = self.added[name] = AutogradFunction(function)
        # Without gradients, since tensors of inference mode cannot be saved for backward.
        return self._leaf(name, torch.no_grad()(module.forward), args, {})

    def _start(self) -> int:
        """Where on the tape the coming call's operators begin."""
        self.observer.source = user_line()
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
        if name in _DEVICES:
            return self.device.type == _DEVICES[name]
        if name == "data":
            return self.__torch_function__(torch.Tensor.detach, (), (tensor,))
        start = self._start()
        value = self._run(lambda: func(tensor))
        if name == "dtype":
            self._dtypes[value] = (tensor, user_frame().f_code)
        if name not in _TENSOR_PROPERTIES:
            return value
        self._claim(value, self._node(start, "call_function", getattr, (tensor, name), {}), ())
        return value

    def _shape(self, tensor: torch.Tensor) -> torch.Size:
        with torch._C.DisableTorchFunction():
            shape = tensor.shape
        key = self._key(tensor)
        if not self._handed_out and key not in self.observer.tape.params:
            asking = next(frame for frame in frames() if frame.f_code.co_filename != __file__)
            self._handed_out = not asking.f_code.co_filename.startswith(_OURS)
        return torch.Size([self.book.size(n, Dim(key, d)) for d, n in enumerate(shape)])

    def _length(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        shape = self._shape(args[0])
        if name == "size":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if dim is None else shape[plain(dim)]
        if name == "__len__":
            self.book.told(shape[0])
            return shape[0]
        total: Any = 1
        for n in shape:
            total = n * total
        return total

    def _device(self, tensor: torch.Tensor) -> torch.device:
        device = torch.device(str(self.device))
        self._devices[id(device)] = device, tensor
        return device

    def _key(self, tensor: torch.Tensor) -> int:
        key = self.observer.ref(tensor).id
        self._tensors[key] = tensor
        return key

    # -- surroundings ---------------------------------------------------------------------------------------------

    @contextmanager
    def _patched(self) -> Iterator[None]:
        def call(original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self._module_call(module, args, kwargs)

        def applied(apply: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            if self.book.muted or kwargs:
                return apply(function, *args, **kwargs)
            if function is checkpoint.CheckpointFunction:
                return args[0](*args[2:])
            return self._autograd(function, args)

        def training(read: Any, module: nn.Module) -> Any:
            # What is one node is the same function in both modes; its hooks need not be.
            self.asked = self.asked or not self.book.muted or hooked(module)
            return read(module)

        replacements = {MODULE_CALL: call, APPLY: applied, TRAINING: training,
                        BATCH_SIZE: instead(lambda size: None), **WRITTEN_OUT, **UNCHECKED,
                        **recorded_regions(self._context)}
        with torch.inference_mode(), torch.enable_grad(), replaced(replacements):
            yield
