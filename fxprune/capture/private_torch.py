"""Every private name of PyTorch that fxprune uses, what for, and what breaks without it.

``tests/capture/test_private_torch.py`` holds this list against the installed torch and against the package, and the
table in ``docs/notes.md`` is this list.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Private:
    """One name.

    Args:
        name: where it is found: a module, a class or an instance of it, and attributes.
        use: what for.
        without: what breaks.
    """

    name: str
    use: str
    without: str


PRIVATE = (
    Private("torch.nn.Module._parameters", "one flat walk over a model; a module's own parameters",
            "every pass; the public walks take three times as long"),
    Private("torch.nn.Module._buffers", "likewise, buffers", "every pass"),
    Private("torch.nn.Module._modules", "likewise, submodules, under each of their names", "every pass"),
    Private("torch.nn.Module._non_persistent_buffers_set", "which buffers a state_dict leaves out",
            "state_dict keys of results"),
    Private("torch.nn.Module._forward_hooks", "whether a module has hooks", "hooks on results"),
    Private("torch.nn.Module._forward_pre_hooks", "likewise", "hooks on results"),
    Private("torch.nn.Module._backward_hooks", "likewise", "hooks on results"),
    Private("torch.nn.Module._backward_pre_hooks", "likewise", "hooks on results"),
    Private("torch.nn.MultiheadAttention._qkv_same_embed_dim", "which of its parameters attention uses",
            "nn.MultiheadAttention"),
    Private("torch.nn.functional._verify_batch_size", "a batch of one is traced in training mode",
            "training graphs for a batch of one"),
    Private("torch.nn.modules.batchnorm._BatchNorm", "batch norms of any rank, and of other packages",
            "what they remember of their width"),
    Private("torch.nn.modules.batchnorm._NormBase", "norms with running statistics", "where activations are read"),
    Private("torch.nn.modules.instancenorm._InstanceNorm", "instance norms of any rank",
            "what they remember of their width"),
    Private("torch.nn.modules.conv._ConvNd", "convolutions of any rank", "remembered widths"),
    Private("torch._C.DisableTorchFunction", "torch's own code inside a call that is one node", "capture"),
    Private("torch._C._set_grad_enabled", "no_grad in forward becomes a node", "gradient modes in graphs"),
    Private("torch._C._functorch.is_functorch_wrapped_tensor", "tensors inside of torch.func have no memory",
            "models with jacrev or vmap in forward"),
    Private("torch._C._nn", "names for functions of torch that public modules only call", "model.py"),
    Private("torch._VF", "likewise", "model.py"),
    Private("torch.autocast._enabled", "autocast in forward becomes a node", "autocast in graphs"),
    Private("torch.autocast._cache_enabled", "likewise", "autocast in graphs"),
    Private("torch.utils._python_dispatch.TorchDispatchMode", "sees every operator", "capture, verification"),
    Private("torch.utils._python_dispatch._disable_current_modes", "runs what the modes shall not see",
            "constants of a model, verification"),
    Private("torch.utils._pytree.tree_iter", "nested inputs and outputs, registered containers included", "every pass"),
    Private("torch.utils._pytree.tree_map_only", "likewise", "every pass"),
    Private("torch.utils._pytree.tree_map", "likewise", "exported programs"),
    Private("torch.utils._pytree.tree_flatten", "likewise", "verification"),
    Private("torch.utils._pytree.tree_unflatten", "likewise", "verification, exported programs"),
    Private("torch.utils._pytree.tree_leaves", "likewise", "model.py"),
    Private("torch.utils._pytree.tree_structure", "likewise", "model.py, exported programs"),
    Private("torch.utils._pytree.TreeSpec", "likewise", "exported programs"),
    Private("torch.ops.aten.add.Tensor._schema", "an operator's name, and whether it writes", "capture"),
    Private("torch.ops.aten.add.Tensor._overloadname", "which overload ran", "capture, verification"),
    Private("torch.ops.aten.add.Tensor._can_decompose", "composites without a rule are taken apart",
            "the reach of rules"),
    Private("torch.UntypedStorage._cdata", "which tensors share memory", "writes through views"),
    Private("torch._assert", "an assertion that torch.fx and torch.export know; documented as part of torch.fx",
            "guards"),
    Private("torch._foreach_mul", "many tensors scaled at once; documented in torch's reference", "DWGL's speed"),
    Private("torch._foreach_mul_", "likewise", "DWGL's speed"),
)
