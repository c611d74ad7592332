"""What the emitted graphs refer to: sliced parameters and buffers, and leaf modules around them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.holdings import transient_buffers
from fxprune.capture.hooks import hooked
from fxprune.capture.model_walk import aliases, named_modules, named_tensors
from fxprune.capture.structure import deep_copy
from fxprune.planning import Plan
from fxprune.rewrite.module_sizes import remembered, remembers
from fxprune.rewrite.slicing import sliced_like

# The masks of a leaf module's first input and of its output, by dimension.
Surroundings = tuple[list[np.ndarray], list[np.ndarray]]


class Parts:
    """Collects what the graphs of one result use; every tensor is sliced once, under all of its names."""

    def __init__(self, model: nn.Module, plan: Plan):
        self.plan = plan
        self.used: dict[str, Any] = {}
        self._modules = dict(named_modules(model))
        self._tensors = dict(named_tensors(model))
        self._memo: dict[int, Any] = {}
        self._renumbered: dict[str, torch.Tensor] = {}
        self._first = {name: first for first, shared in aliases(model).items() for name in shared}
        if any(map(hooked, self._modules.values())):
            # Hooks may be methods of any module: they get one of its class that holds what the result holds.
            for name in self._tensors:
                self.tensor(name)
            deep_copy(model, self._memo)

    def tensor(self, name: str) -> torch.Tensor:
        """The slice of a parameter or buffer; one object for all of its names."""
        original = self._tensors[name]
        if id(original) not in self._memo:
            self._memo[id(original)] = sliced_like(original, self.plan.keep.get(self._first[name], {}))
        return self._memo[id(original)]

    def module(self, target: str, around: Callable[[], Surroundings]) -> str:
        """A copy of a leaf module with sliced tensors; returns its name in the result."""
        module = self._modules[target]
        for name, _ in named_tensors(module):
            self.tensor(f"{target}.{name}")
        into, out = around() if remembers(module) else ([], [])
        if target not in self.used:
            self.used[target] = self._adjusted(self._copy(module), module, into, out)
            return target
        wanted = remembered(module, self.used[target], into, out)
        if not wanted:
            return target
        # A module without weights that serves two widths: each call gets a module of its own.
        name = next(f"{target}_{k}" for k in range(2, 1_000_000) if f"{target}_{k}" not in self.used)
        self.used[name] = self._adjusted(self._copy(module, fresh=True), module, into, out)
        return name

    def _copy(self, module: nn.Module, fresh: bool = False) -> nn.Module:
        known = self._memo.pop(id(module), None) if fresh else None
        copied = deep_copy(module, self._memo)
        if known is not None:
            self._memo[id(module)] = known
        return copied

    def _adjusted(self, copied: nn.Module, original: nn.Module, into: Any, out: Any) -> nn.Module:
        vars(copied).update(remembered(original, copied, into, out))
        return copied

    def attribute(self, target: str) -> None:
        if target in self._tensors and target not in self._renumbered:
            self.used[target] = self.tensor(target)

    def renumber(self, name: str, value: torch.Tensor) -> bool:
        """Put a renumbered index table in its buffer's own place; False where the place is taken by another one."""
        if name not in self._tensors or not torch.equal(self._renumbered.setdefault(name, value), value):
            return False
        self.used[name] = value.to(self._tensors[name])
        return True

    def constant(self, name: str, value: torch.Tensor) -> str:
        """Its name in the result; two graphs may call different constants alike."""
        value = value.to(next((t.device for t in self._tensors.values()), torch.device("cpu")))
        while name in self.used and not _alike(self.used[name], value):
            name += "_"
        self.used[name] = value
        return name

    def added(self, name: str, module: nn.Module) -> str:
        """The same for modules that the model does not have."""
        while name in self.used and self.used[name].key != module.key:
            name += "_"
        self.used[name] = module
        return name

    def root(self) -> nn.Module:
        """A skeleton that holds all used parts under their names."""
        owners = {"": nn.Module()}

        def owned(path: str) -> nn.Module:
            if path not in owners:
                above, _, part = path.rpartition(".")
                owner = owned(above)
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owners[path] = getattr(owner, part)
            return owners[path]

        for target in sorted(self.used, key=lambda t: t.count(".")):
            path, _, leaf = target.rpartition(".")
            owner, value = owned(path), self.used[target]
            if isinstance(value, nn.Module):
                owner.add_module(leaf, value)
            elif isinstance(value, nn.Parameter):
                owner.register_parameter(leaf, value)
            elif not hasattr(owner, leaf):
                owner.register_buffer(leaf, value, persistent=self._persistent(target))
        return owners[""]

    def _persistent(self, name: str) -> bool:
        path, _, leaf = name.rpartition(".")
        return name in self._tensors and leaf not in transient_buffers(self._modules[path])


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
