"""What a module holds of its own: parameters, buffers, submodules, hooks, under private names of ``nn.Module``.

The public walks (``named_parameters`` and the like) are generators nested as deep as the modules, leave out what is
``None``, and do not tell which buffers a ``state_dict`` skips.
"""

import torch
from torch import nn

# All but the mode: nobody but the module refers to these dictionaries.
HOLDINGS = tuple(name for name in vars(nn.Module()) if name != "training")


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The module's own parameters by name, None where it has registered none."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """The module's own buffers by name, likewise."""
    return module._buffers


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """The module's own submodules by name, likewise; one that it has under two names stands there twice."""
    return module._modules


def transient_buffers(module: nn.Module) -> set[str]:
    """The module's own buffers that are not part of its ``state_dict``.

    >>> module = nn.Module()
    >>> module.register_buffer("table", None, persistent=False)
    >>> transient_buffers(module)
    {'table'}
    """
    return module._non_persistent_buffers_set


def hand_over(module: nn.Module, to: nn.Module) -> nn.Module:
    """Let another module hold all that ``module`` holds; both share it from then on."""
    vars(to).update({name: vars(module)[name] for name in HOLDINGS})
    return to
