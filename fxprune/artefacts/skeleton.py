"""The modules, parameters and buffers of an emitted module as constructor calls, nested as its names are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fxprune.artefacts.constructors import constructor
from fxprune.artefacts.source_values import is_name, literal
from fxprune.capture.holdings import own_buffers, own_parameters, transient_buffers
from fxprune.errors import UnsupportedError

INDENT = "    "


@dataclass
class Skeleton:
    """Writes the body of ``__init__``, and knows how each part is then reached.

    Args:
        root: the emitted module: plain ``nn.Module`` containers around leaf modules, parameters and buffers.
        parts: whether the class ``Parts`` is needed.
        items: whether parts of the root itself are reached by number.
    """

    root: nn.Module
    parts: bool = False
    items: bool = False
    _lists: set[str] = field(default_factory=set)

    def lines(self) -> Iterator[str]:
        """The statements, without indentation."""
        for name, tensor, persistent in _tensors(self.root):
            yield self._assign(name, _tensor(tensor, persistent))
        for name, child in self.root.named_children():
            yield self._assign(name, self._part(child, name, 0))
        yield from self._ties()
        yield from self._frozen()

    def reach(self, target: str) -> str:
        """The expression for a part: ``layer1.0.conv1`` is ``self.layer1[0].conv1``."""
        text = "self"
        for part in target.split("."):
            if is_name(part):
                text += f".{part}"
            elif part.isdecimal():
                self.items = self.items or text == "self"
                text += f"[{int(part)}]" if str(int(part)) == part else f"[{part!r}]"
            else:
                text = f"getattr({text}, {part!r})"
        return text

    def _assign(self, name: str, text: str) -> str:
        return f"self.{name} = {text}" if is_name(name) else f"setattr(self, {name!r}, {text})"

    def _part(self, module: nn.Module, path: str, depth: int) -> str:
        if type(module) is not nn.Module:
            try:
                return constructor(module)
            except UnsupportedError as error:
                raise UnsupportedError(f"{error} (at {path!r})") from None
        tensors, children = list(_tensors(module)), dict(module.named_children())
        if children and not tensors and list(children) == [str(i) for i in range(len(children))]:
            return self._bracketed("nn.ModuleList([", "])", depth, [
                self._part(child, f"{path}.{name}", depth + 1) for name, child in children.items()])
        self.parts = True
        items = [(name, _tensor(tensor, persistent)) for name, tensor, persistent in tensors]
        items += [(name, self._part(child, f"{path}.{name}", depth + 1)) for name, child in children.items()]
        if all(is_name(name) for name, _ in items):
            return self._bracketed("Parts(", ")", depth, [f"{name}={text}" for name, text in items])
        return self._bracketed("Parts(**{", "})", depth, [f"{name!r}: {text}" for name, text in items])

    def _bracketed(self, start: str, end: str, depth: int, items: list[str]) -> str:
        inner, outer = f"\n{INDENT * (depth + 1)}", f"\n{INDENT * depth}"
        return start + "".join(f"{inner}{item}," for item in items) + (outer if items else "") + end

    def _ties(self) -> Iterator[str]:
        first: dict[int, str] = {}
        named = (*self.root.named_parameters(remove_duplicate=False), *self.root.named_buffers(remove_duplicate=False))
        for name, tensor in named:
            known = first.setdefault(id(tensor), name)
            if known != name:
                owner, _, leaf = name.rpartition(".")
                place = self.reach(owner) if owner else "self"
                target = f"{place}.{leaf}" if is_name(leaf) else None
                text = self.reach(known)
                yield f"{target} = {text}" if target else f"setattr({place}, {leaf!r}, {text})"

    def _frozen(self) -> Iterator[str]:
        named = dict(self.root.named_parameters())
        frozen = [name for name, parameter in named.items() if not parameter.requires_grad]
        if frozen and len(frozen) == len(named):
            yield "self.requires_grad_(False)"
            return
        for name in frozen:
            yield f"{self.reach(name)}.requires_grad_(False)"


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    for name, tensor in (*own_parameters(module).items(), *own_buffers(module).items()):
        if tensor is not None:
            yield name, tensor, name not in transient_buffers(module)


def _tensor(tensor: torch.Tensor, persistent: bool) -> str:
    sizes: list[Any] = [literal(tuple(tensor.shape))]
    if tensor.dtype != torch.float32:
        sizes.append(f"dtype={literal(tensor.dtype)}")
    empty = f"torch.empty({', '.join(sizes)})"
    if isinstance(tensor, nn.Parameter):
        # A whole number cannot have a gradient, and says so when it is made.
        return f"nn.Parameter({empty})" if tensor.is_floating_point() or tensor.is_complex() else \
            f"nn.Parameter({empty}, requires_grad=False)"
    return f"nn.Buffer({empty})" if persistent else f"nn.Buffer({empty}, persistent=False)"
