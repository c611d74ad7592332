"""Watch a model run once and write its ATen operators on a tape.

Under ``torch.inference_mode`` composite operators arrive whole (``linear``, ``einsum``, ``lstm``,
``scaled_dot_product_attention``) and do not depend on the backend. Tensors live on the meta device where that is
possible; those that are computed from integer buffers and constants alone keep their contents on the side, because an
index that is known moves data exactly, and one that is not freezes what it meets.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from fxprune.capture.data_shapes import DataShapes
from fxprune.capture.dispatch import storage_of
from fxprune.capture.finiteness import Finiteness
from fxprune.capture.pytrees import tree_iter, tree_map_only
from fxprune.capture.quick_shapes import quick
from fxprune.errors import CaptureError
from fxprune.ir.normal_tensors import NormalTensors
from fxprune.ir.tape import Call, Ref, Tape
from fxprune.ir.trees import leaves, mapped, named_tensors_in
from fxprune.rules.registry import couple_of

# Beyond this many elements a constant's contents are not followed: no index table is larger.
KNOWN_LIMIT = 1 << 22
# Operators that say something about a tensor and move nothing.
SILENT = {"prim::device", "aten::is_same_size", "aten::_has_compatible_shallow_copy_type", "aten::set_.source_Tensor",
          "aten::_assert_async", "aten::_assert_tensor_metadata", "aten::sym_size", "aten::is_pinned",
          "aten::lift_fresh", "aten::detach_", "profiler::_record_function_enter_new",
          "profiler::_record_function_exit"}
# Torch leaves them out, the one where a tensor is contiguous already, which depends on sizes and backends, the other
# where nobody else holds what an operator has just made. So they are never met for certain: the result is the tensor
# that they were given.
SAME = frozenset({"aten::contiguous", "aten::detach"})
# How a number becomes a tensor where it is written by index, on some devices only.
NUMBER = "aten::scalar_tensor"
READS = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::allclose"}
RANDOM = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "uniform", "empty", "dropout",
          "exponential", "random", "rand_like", "randn_like", "randint_like", "empty_like", "new_empty",
          "empty_strided", "new_empty_strided", "log_normal", "geometric", "cauchy", "poisson"}

META = torch.device("meta")


class Observer(TorchDispatchMode):
    """Records every operator call; ``node`` and ``source`` are set by whoever knows what runs just now."""

    def __init__(self, real: bool = False, finite: bool = False, draws: Any = None):
        super().__init__()
        self.tape = Tape()
        self.node, self.source = "", ""
        # Whoever writes nodes may want one for an operator that no function of torch was called for.
        self.direct: Callable[..., Any] = lambda record, *call: record(*call)
        self.writing = False  # by index, just now
        self.real = real
        self.unsteady = DataShapes()
        self._seen: dict[int, tuple[torch.Tensor, Ref]] = {}
        self._numbers = itertools.count()
        self.finiteness = Finiteness(self.known) if finite else None
        self.draws = draws  # what answers where Python decides by a number that was drawn, if anything does
        self._drawn: set[int] = set()  # tensors that hold nothing but random numbers, and what is made of those alone
        self._known: dict[int, torch.Tensor] = {}
        self._storages: set[int] = set()  # those that hold something known
        self._adopted: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def ref(self, tensor: torch.Tensor) -> Ref:
        """The tape's name for a tensor; the tensor is kept alive, so that ids stay unique."""
        if id(tensor) not in self._seen:
            self._name(tensor)
        return self._seen[id(tensor)][1]

    def _name(self, tensor: torch.Tensor) -> None:
        ref = Ref(next(self._numbers), tuple(tensor.shape))
        self._seen[id(tensor)] = (tensor, ref)
        self.tape.storages[ref.id] = storage_of(tensor)
        if tensor.dtype in (torch.bool, torch.uint8):
            self.tape.masks.add(ref.id)

    def know(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """``tensor`` is a constant with these contents."""
        if value.numel() <= KNOWN_LIMIT:
            self._remember(tensor, value)
            if not value.is_floating_point() and not value.is_complex():
                with _disable_current_modes():
                    self.tape.values[self.ref(tensor).id] = value.numpy().copy()

    def _remember(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        self._known[id(tensor)] = value
        self._storages.add(self.tape.storages[self.ref(tensor).id])

    def returns(self, value: Any) -> None:
        """The model has returned this."""
        found = list(named_tensors_in(value))
        self.tape.outputs[:] = [self.ref(tensor).id for _, tensor in found]
        self.tape.output_names[:] = [name or "output" for name, _ in found]

    def known(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return self._known.get(id(tensor))

    def alias(self, tensor: torch.Tensor) -> torch.Tensor:
        """Another object for the same tensor."""
        with _disable_current_modes(), torch._C.DisableTorchFunction():  # no call of the model's
            other = tensor.detach()
        self._seen[id(other)] = (other, self.ref(tensor))
        if id(tensor) in self._known:
            self._remember(other, self._known[id(tensor)])
        return other

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = facts(func).name
        if name in READS:
            return self._read(func, args, kwargs)
        how = observed(func, args)
        if name == "aten::lift_fresh":
            return args[0] if self.real or args[0].device.type == "meta" else self._constant(func, args[0])
        if name == NUMBER and self.writing and not self.real:
            return self._constant(func, func(*args, **{**kwargs, "device": torch.device("cpu")}))
        if name in SAME:
            return self._same(func, *self._on_meta(args, kwargs))
        if how == "skip":
            return args[0] if name == "aten::add_" and not self.real else func(*args, **kwargs)
        if how == "decompose":
            with self:
                return func.decompose(*args, **kwargs)
        return self.direct(self._record, func, args, kwargs)

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = self._on_meta(args, kwargs)
        out = self._run(func, args, kwargs)
        self._write(func, facts(func).name, args, kwargs, out)
        return out

    def _same(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """The result goes by its argument's name."""
        out, known = func(*args, **kwargs), self.known(args[0])
        if out is not args[0]:
            self._seen[id(out)] = (out, self.ref(args[0]))
            if known is not None:
                self._remember(out, known.contiguous())
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = leaves((args, kwargs), torch.Tensor)
        constant = all(id(t) in self._known for t in tensors) and not facts(func).random and not self.unsteady.given
        if self.real:
            out = func(*args, **kwargs)
            value = out
        else:
            value = self._value(func, args, kwargs) if constant else None
            out = self._meta(func, args, kwargs)
        if constant and value is not None:
            self._learn(out, value)
        elif not constant:
            self._forget(func, args, out)
            # What is made to a length that the data decide on is not drawn.
            if not self.unsteady.given and all(id(t) in self._known or self.ref(t).id in self._drawn for t in tensors):
                self._drawn.update(self.ref(t).id for t in leaves(out, torch.Tensor))
                if self.draws:
                    self.draws.follow(func, args, kwargs, out, self)
            if self.finiteness and not facts(func).random and not facts(func).mutable:
                self.finiteness.follow(facts(func).name, func, args, kwargs, out)
        return out

    def _meta(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = quick(facts(func).name, args, kwargs)
        if out is not None:
            return out
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": META}
        if any(isinstance(arg, torch.device) for arg in args):
            args = [META if isinstance(arg, torch.device) else arg for arg in args]
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and out.is_meta:
            return out
        return tree_map_only(torch.Tensor, lambda t: t if t.device.type == "meta" else t.to("meta"), out)

    def _value(self, func: Any, args: Any, kwargs: Any) -> Any:
        sizes = [n for n in tree_iter(args) if isinstance(n, int)]
        if any(n > KNOWN_LIMIT for n in sizes):
            return None
        real = tree_map_only(torch.Tensor, lambda t: self._known[id(t)], (args, kwargs))
        args, kwargs = tree_map_only(torch.device, lambda device: torch.device("cpu"), real)
        return func(*args, **kwargs)

    def _learn(self, out: Any, value: Any) -> None:
        for tensor, real in zip(tree_iter(out), tree_iter(value), strict=True):
            if isinstance(tensor, torch.Tensor) and real.numel() <= KNOWN_LIMIT:
                self._remember(tensor, real)
                if not real.is_floating_point() and not real.is_complex():
                    self.tape.values[self.ref(tensor).id] = real.detach().cpu().numpy().copy()

    def _forget(self, func: Any, args: Any, out: Any) -> None:
        """A constant that something unknown was written into is a constant no more, nor are its views."""
        if not facts(func).mutable:
            return
        storages = self.tape.storages
        changed = results(func, args, {}, out)
        for storage in self._storages.intersection(storages[self.ref(tensor).id] for tensor in changed):
            for key in [k for k in self._known if storages[self._seen[k][1].id] == storage]:
                self._known.pop(key)
                self.tape.values.pop(self._seen[key][1].id, None)
            self._storages.discard(storage)

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        if all(id(t) in self._known for t in leaves((args, kwargs), torch.Tensor)):
            return func(*tree_map_only(torch.Tensor, lambda t: self._known[id(t)], args), **kwargs)
        told, value = self.finiteness.read(func, args, kwargs) if self.finiteness else (False, None)
        return value if told else self.data_dependent(func, args, kwargs)

    def data_dependent(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A value that depends on the input's contents steers Python."""
        if all(self.ref(t).id in self._drawn for t in leaves((args, kwargs), torch.Tensor)):
            answer = self.draws.decides(self.ref(args[0]).id, self.source) if self.draws else None
            if answer is not None:
                return answer
            raise CaptureError(f"the model decides in Python by a number that it draws ({self.source}), as LayerDrop "
                               "does, and a graph takes one way; set its probability to 0 before compressing")
        raise CaptureError(f"the model reads a tensor's contents in Python ({func._schema.name} at {self.source}), "
                           "so that its graph depends on the data")

    def _constant(self, func: Any, real: torch.Tensor) -> torch.Tensor:
        # ``from_numpy`` comes here past every function mode.
        with torch._C.DisableTorchFunction():
            out = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="meta")
        self._learn(out, real.clone())
        return out

    def _on_meta(self, args: Any, kwargs: Any) -> Any:
        """Constants that were made outside of what is watched (a cached mask, a table from numpy) join in."""
        if self.real:
            return args, kwargs
        strays = [t for t in leaves((args, kwargs), torch.Tensor) if not t.is_meta]
        if not strays:
            return args, kwargs
        moved = {id(t): self.adopt(t) for t in strays}
        return tree_map_only(torch.Tensor, lambda t: moved.get(id(t), t), (args, kwargs))

    def adopt(self, real: torch.Tensor) -> torch.Tensor:
        """A meta tensor that stands for a constant."""
        if id(real) not in self._adopted:
            # A view of the one must be possible where one of the other is: not of a tensor of inference mode.
            with torch._C.DisableTorchFunction(), _disable_current_modes(), NormalTensors():
                meta = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="meta")
                self.know(meta, real.detach().cpu().clone())
            self._adopted[id(real)] = (real, meta)
        return self._adopted[id(real)][1]

    def _write(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> None:
        if not leaves(out, torch.Tensor):
            out = results(func, args, kwargs, out)
            if not out:
                return
        if self.real:
            self._mark(func, args, kwargs, out)
        args, kwargs = mapped((tuple(args), dict(kwargs)), self.ref, torch.Tensor)
        for tensor in leaves(out, torch.Tensor) if facts(func).mutable else ():
            if tuple(tensor.shape) != self.ref(tensor).shape:
                self._name(tensor)  # ``squeeze_``: the same tensor, and from now on another one
        outs = mapped(out, self.ref, torch.Tensor)
        self.tape.calls.append(Call(name, func._overloadname, args, kwargs, outs, self.node, self.source))

    def _mark(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        tensors = leaves((args, kwargs), torch.Tensor)
        if all(id(t) in self._known for t in tensors) and not self.unsteady.given:
            return
        operands = {id(t): self.ref(t).id for t in tensors}
        if self.unsteady.number_of(func, args, operands):
            self.data_dependent(func, args, kwargs)
        self.unsteady.note(func, args, kwargs, operands, [(self.ref(t).id, t) for t in leaves(out, torch.Tensor)])


def results(func: Any, args: Any, kwargs: Any, out: Any) -> list[torch.Tensor]:
    """The tensors that an operator gave: of one that returns nothing those that it writes into, as its schema says.

    >>> y = torch.ones(2)
    >>> results(torch.ops.aten._foreach_mul_.Scalar, ([y], 3.0), {}, None)
    [tensor([1., 1.])]
    """
    given = leaves(out, torch.Tensor)
    if given or not facts(func).mutable:
        return given
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    return [tensor for argument in func._schema.arguments if argument.alias_info is not None
            and argument.alias_info.is_write for tensor in leaves(named.get(argument.name), torch.Tensor)]


def observed(func: Any, args: Any) -> str:
    """What happens with an operator: ``"record"``, ``"skip"``, or ``"decompose"`` where it is a composite without a
    rule."""
    name = facts(func).name
    if name in SILENT or name in READS or name in SAME or name == "aten::add_" and _counts(args[0]):
        return "skip"
    if couple_of(name) is None and func._can_decompose():
        return "decompose"
    return "record"


def _counts(tensor: torch.Tensor) -> bool:
    """A counter (``num_batches_tracked``), which only training mode advances."""
    return tensor.dim() == 0 and not tensor.is_floating_point()


@dataclass(frozen=True)
class Facts:
    """What an operator's schema says: its qualified name, whether it draws numbers, whether it writes."""

    name: str
    random: bool
    mutable: bool


@cache
def facts(func: Any) -> Facts:
    """Asked for at every call, and slow to ask of a schema."""
    name = func._schema.name
    return Facts(name, name.partition("::")[2].rstrip("_") in RANDOM, func._schema.is_mutable)
