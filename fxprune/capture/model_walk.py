"""A model's modules, parameters and buffers under all of their names, and who shares whom.

One walk serves all: modules in the order of ``state_dict``, a module's parameters before its buffers. Unlike
``state_dict`` it meets non-persistent buffers too, since a plan may have to slice them.
"""

from collections.abc import Iterator

import torch

from fxprune.ir.signature import Signature, dtype_name


def named_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module under every one of its names, parents first.

    ``nn.Module.named_modules`` without its generators, which are nested as deep as the modules: this runs often.

    >>> act = torch.nn.ReLU()
    >>> [name for name, _ in named_modules(torch.nn.Sequential(act, torch.nn.Sequential(act)))]
    ['', '0', '1', '1.0']
    """
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        yield name, module
        children = module._modules
        if children:
            prefix = name and f"{name}."
            waiting += [(prefix + key, child) for key, child in reversed(children.items()) if child is not None]


def named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under every one of its names, in ``state_dict`` order.

    >>> [name for name, _ in named_tensors(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))][:4]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    for name, module in named_modules(model):
        for own in (module._parameters, module._buffers):
            if own:
                prefix = name and f"{name}."
                yield from [(prefix + key, tensor) for key, tensor in own.items() if tensor is not None]


def signature_of(model: torch.nn.Module) -> Signature:
    """Name, shape and dtype of every parameter and buffer.

    >>> signature_of(torch.nn.Linear(3, 2)).entries
    (('weight', (2, 3), 'float32'), ('bias', (2,), 'float32'))
    """
    return Signature(tuple((name, tuple(t.shape), dtype_name(t.dtype)) for name, t in named_tensors(model)))


def aliases(model: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """First name -> all names of every parameter and buffer; one name for most, several where it is shared.

    Sharing is by identity: two modules that hold one ``nn.Parameter``, or one module under two names.

    >>> a = torch.nn.Linear(2, 2, bias=False)
    >>> aliases(torch.nn.Sequential(a, torch.nn.ReLU(), a))
    {'0.weight': ('0.weight', '2.weight')}
    """
    names: dict[int, list[str]] = {}
    for name, tensor in named_tensors(model):
        names.setdefault(id(tensor), []).append(name)
    return {all_names[0]: tuple(all_names) for all_names in names.values()}
