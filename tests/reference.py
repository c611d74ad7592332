"""An independent reference: the original with what the plan removes set to zero.

It knows nothing of the compiler: it reads ``plan.keep`` (name -> dimension -> kept indices) and nothing else. In a
float64 copy with random weights the removed slices of every parameter and buffer become zero, on the producing and on
the reading side; operators that take statistics over channels are replaced by `KeptOnly`, which computes them over the
kept ones. The pruned module gets the same weights, sliced by indexing. Then both must give the same outputs, gradients
and running statistics.
"""

import copy
import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Keep = Mapping[str, Mapping[int, Any]]


class KeptOnly(nn.Module):
    """``compute`` over the kept indices of one dimension; what it gives is put back among zeros.

    Args:
        compute: a function of the input without the removed indices.
        dim: the dimension of the input that holds channels.
        kept: their kept indices.
        back: the dimension of the output that they go back to, None where the output has none.
    """

    def __init__(self, compute: Callable[..., Any], dim: int, kept: Any, back: int | None = None):
        super().__init__()
        self.compute, self.dim, self.back = compute, dim, back
        self.kept = torch.as_tensor(tuple(kept))

    def forward(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        total = x.shape[self.dim]
        out = self.compute(x.index_select(self.dim, self.kept), *rest)
        if self.back is None:
            return out
        shape = list(out.shape)
        shape[self.back] = total
        return out.new_zeros(shape).index_copy(self.back, self.kept, out)


def duplicate(model: nn.Module) -> nn.Module:
    """A deep copy, also where a module keeps a computed tensor as an attribute (weight norm's ``weight``)."""
    computed = [v for m in model.modules() for v in vars(m).values() if isinstance(v, torch.Tensor) and not v.is_leaf]
    return copy.deepcopy(model, {id(v): v.detach().clone() for v in computed})


def index(tensor: torch.Tensor, dims: Mapping[int, Any]) -> torch.Tensor:
    """The kept indices of a tensor, one dimension after the other."""
    for dim, kept in dims.items():
        tensor = tensor.index_select(dim, torch.as_tensor(tuple(kept), device=tensor.device))
    return tensor


def tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers under all of their names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def randomise(model: nn.Module, seed: int) -> None:
    """Weights around zero, variances and scales around one; nothing is zero, and no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors(model):
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith(("running_var", "original0", "weight_g")):
                noise = noise.abs() + 0.5
            elif name.endswith("_u") or name.endswith("_v"):  # spectral norm's vectors
                noise = F.normalize(noise, dim=0)
            tensor.copy_(noise)


def zeroed(model: nn.Module, keep: Keep, skip: Mapping[str, tuple[int, ...]]) -> None:
    """Set the removed slices of every floating tensor to zero, but for the dimensions in ``skip``."""
    named = dict(tensors(model))
    with torch.no_grad():
        for name, dims in keep.items():
            tensor = named[name]
            for dim, kept in dims.items():
                if tensor.is_floating_point() and dim not in skip.get(name, ()):
                    gone = sorted(set(range(tensor.shape[dim])) - set(kept))
                    tensor.index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0)


def _norms(model: nn.Module, keep: Keep) -> None:
    """Replace norms over channels whose weights lose something by norms over what is kept."""
    for path, module in list(model.named_modules()):
        kept = keep.get(f"{path}.weight", {})
        if not kept or not isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)):
            continue
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _kept_norm(module, kept))


def _kept_norm(module: nn.Module, kept: Mapping[int, Any]) -> nn.Module:
    (dim, channels), = kept.items()
    weight, bias = (lambda: index(module.weight, kept)), (lambda: None if module.bias is None else
                                                           index(module.bias, kept))
    if isinstance(module, nn.GroupNorm):
        groups = len({c // (module.num_channels // module.num_groups) for c in channels})
        new = KeptOnly(lambda x: F.group_norm(x, groups, weight(), bias(), module.eps), 1, channels, 1)
    elif isinstance(module, nn.RMSNorm):
        new = KeptOnly(lambda x: F.rms_norm(x, weight().shape, weight(), module.eps), -1, channels, -1)
    else:
        rank = len(module.normalized_shape)
        new = KeptOnly(lambda x: F.layer_norm(x, weight().shape, weight(), bias(), module.eps), dim - rank, channels,
                       dim - rank)
    new.weight, new.eps = module.weight, module.eps
    if getattr(module, "bias", None) is not None:
        new.bias = module.bias
    return new


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in an output, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in leaves(item)]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in leaves(item)]
    return []


def shaped(value: Any) -> Any:
    """The output's structure, without the tensors' contents."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if dataclasses.is_dataclass(value):
        return type(value), {f.name: shaped(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return type(value), {key: shaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [shaped(item) for item in value]
    return value


def assert_sliced(model: nn.Module, small: nn.Module, keep: Keep, renumbered: tuple[str, ...] = ()) -> None:
    """Every tensor of the result is exactly the kept part of the original's, and shares no memory with it."""
    originals, state = dict(tensors(model)), small.state_dict()
    assert set(state) <= set(model.state_dict()), sorted(set(state) - set(model.state_dict()))
    memory = {t.untyped_storage().data_ptr() for t in originals.values() if t.numel()}
    for name, tensor in tensors(small):
        assert not tensor.numel() or tensor.untyped_storage().data_ptr() not in memory, f"{name} shares memory"
        if name not in originals:
            assert name not in state
            continue
        expected = index(originals[name], keep.get(name, {}))
        assert tensor.shape == expected.shape, (name, tensor.shape, expected.shape)
        assert tensor.dtype == expected.dtype and tensor.requires_grad == originals[name].requires_grad, name
        assert isinstance(tensor, nn.Parameter) == isinstance(originals[name], nn.Parameter), name
        assert name in renumbered or torch.equal(tensor, expected), f"{name} is not the slice that the plan says"


def load(small: nn.Module, model: nn.Module, keep: Keep) -> None:
    """Give the pruned module the (float64) weights of ``model``, sliced."""
    originals = dict(tensors(model))
    with torch.no_grad():
        for name, tensor in tensors(small):
            if name in originals and tensor.is_floating_point():
                tensor.copy_(index(originals[name], keep.get(name, {})))


Patch = Callable[[nn.Module, Callable[[str, int], tuple[int, ...]]], None]


def masked(model: nn.Module, keep: Keep, seed: int, patch: Patch | None = None,
           skip: Mapping[str, tuple[int, ...]] | None = None) -> nn.Module:
    """The masked original in float64. ``patch(copy, kept)`` replaces what else computes over channels, where
    ``kept(name, dim)`` gives the kept indices of a parameter's dimension."""
    full = duplicate(model).double()
    randomise(full, seed)
    named = dict(tensors(full))
    zeroed(full, keep, skip or {})
    _norms(full, keep)
    if patch is not None:
        patch(full, lambda name, dim: tuple(keep.get(name, {}).get(dim, range(named[name].shape[dim]))))
    return full


def call(module: nn.Module, inputs: Any) -> Any:
    return module(**inputs) if isinstance(inputs, dict) else module(*inputs)


def doubled(inputs: Any) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, dict):
        return {key: doubled(item) for key, item in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(map(doubled, inputs))
    return inputs


def assert_close(ours: Any, theirs: Any, where: str, tolerance: float = 1e-6, least: float = 1e-3) -> None:
    assert shaped(ours) == shaped(theirs), f"{where}: {shaped(ours)} is not {shaped(theirs)}"
    for k, (a, b) in enumerate(zip(leaves(ours), leaves(theirs), strict=True)):
        scale = max(float(b.detach().abs().max()) if b.numel() else 0.0, least)
        error = float((a - b).detach().abs().max()) / scale if b.numel() else 0.0
        assert torch.isfinite(b).all(), f"{where}: the reference's output {k} is not finite"
        assert error < tolerance, f"{where}: output {k} differs by {error:.2e} of its range"


def assert_agrees(model: nn.Module, small: nn.Module, keep: Keep, inputs: Callable[[int], Any], *, seed: int = 0,
                  patch: Patch | None = None, skip: Mapping[str, tuple[int, ...]] | None = None,
                  modes: tuple[str, ...] = ("eval", "train"), batches: tuple[int, ...] = (2, 3)) -> None:
    """The pruned module computes what the masked original computes, forward and backward.

    Args:
        inputs: arguments (tuple, or dict of keyword arguments) for a batch size.
        skip: dimensions that must not be zeroed (a norm of them is divided by).
    """
    full, ours = masked(model, keep, seed, patch, skip), copy.deepcopy(small).double()
    plain = duplicate(model).double()
    randomise(plain, seed)
    load(ours, plain, keep)
    for batch in batches:
        for mode in modes:
            torch.manual_seed(batch)
            arguments = doubled(inputs(batch))
            for module in (full, ours):
                module.train(mode == "train")
                module.zero_grad()
            where = f"{mode}, batch {batch}"
            # Inputs may be written into, so that each gets its own.
            theirs, mine = call(full, copy.deepcopy(arguments)), call(ours, copy.deepcopy(arguments))
            assert_close(mine, theirs, where)
            _backward(mine, theirs)
            _assert_gradients(full, ours, keep, where)
            _assert_statistics(full, ours, keep, where)


def _backward(mine: Any, theirs: Any) -> None:
    pairs = [(a, b) for a, b in zip(leaves(mine), leaves(theirs), strict=True) if b.requires_grad]
    weights = [torch.randn(b.shape, dtype=b.dtype) for _, b in pairs]
    for side in (0, 1):
        if pairs:
            sum((pair[side] * w).sum() for pair, w in zip(pairs, weights, strict=True)).backward()


def _assert_gradients(full: nn.Module, ours: nn.Module, keep: Keep, where: str) -> None:
    theirs = dict(full.named_parameters(remove_duplicate=False))
    # What should be zero is noise, and noise is judged by the largest gradient.
    largest = max((float(p.grad.abs().max()) for p in theirs.values() if p.grad is not None and p.numel()), default=0.0)
    for name, parameter in ours.named_parameters():
        if name not in theirs:  # a module that was patched
            continue
        expected = theirs[name].grad
        if expected is None or parameter.grad is None:
            assert expected is None or not expected.any(), f"{where}: {name} has no gradient"
            assert parameter.grad is None or not parameter.grad.any(), f"{where}: {name} has a gradient"
            continue
        assert_close(parameter.grad, index(expected, keep.get(name, {})), f"{where}: gradient of {name}", 1e-5,
                     max(1e-2 * largest, 1e-3))


def _assert_statistics(full: nn.Module, ours: nn.Module, keep: Keep, where: str) -> None:
    theirs = dict(full.named_buffers(remove_duplicate=False))
    for name, buffer in ours.named_buffers():
        if name in theirs and buffer.is_floating_point():
            assert_close(buffer, index(theirs[name], keep.get(name, {})), f"{where}: buffer {name}")


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """All that a user could find changed: tensors bit for bit, modes, hooks, attributes, and random generators."""
    found: dict[str, Any] = {
        "rng": (_digest(torch.get_rng_state()), random.getstate(), _digest(torch.from_numpy(np.random.get_state()[1]))),
        "torch": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()),
    }
    for name, tensor in tensors(module):
        found[f"tensor {name}"] = (id(tensor), tensor._version, tensor.requires_grad, tensor.stride(),
                                   tensor.data_ptr(), _digest(tensor), id(tensor.grad))
    for name, part in module.named_modules(remove_duplicate=False):
        for key, value in vars(part).items():
            found[f"attribute {name}.{key}"] = _identity(value)
    return found


def assert_untouched(before: dict[str, Any], module: nn.Module) -> None:
    after = fingerprint(module)
    changed = [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
    assert not changed, f"changed: {changed}"


def _digest(tensor: torch.Tensor) -> str:
    plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().tobytes()).hexdigest()


def _identity(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        return type(value), value
    if isinstance(value, torch.Tensor):
        return id(value), _digest(value)
    if isinstance(value, dict):
        return id(value), [(key, id(item)) for key, item in value.items()]
    return id(value)
