"""One module, two graphs: ``train()`` and ``eval()`` switch between them, over the same submodules."""

import copy
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule


class DualGraphModule(GraphModule):
    """A GraphModule whose ``graph`` is the training graph in training mode and the inference graph otherwise."""

    def __init__(self, root: nn.Module, evaluated: Graph, trained: Graph, class_name: str = "GraphModule"):
        super().__init__(root, evaluated, class_name)
        _adopt_missing(self, root)
        self.evaluated, self.trained = self.graph, _owned(trained, self)
        self.train(True)

    def train(self, mode: bool = True) -> "DualGraphModule":
        super().train(mode)
        graph = self.trained if mode else self.evaluated
        if graph is not self._graph:
            self.graph = graph
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "DualGraphModule":
        root = nn.Module()
        copied = {name: copy.deepcopy(module, memo) for name, module in self._modules.items()}
        for name, module in copied.items():
            root.add_module(name, module)
        for name, parameter in self._parameters.items():
            root.register_parameter(name, copy.deepcopy(parameter, memo))
        for name, buffer in self._buffers.items():
            root.register_buffer(name, copy.deepcopy(buffer, memo), name not in self._non_persistent_buffers_set)
        new = DualGraphModule(root, copy.deepcopy(self.evaluated), copy.deepcopy(self.trained), self._get_name())
        new.meta = dict(self.meta)
        for name, module in self.named_modules():
            new.get_submodule(name).training = module.training
        return new.train_flag(self.training)

    def train_flag(self, mode: bool) -> "DualGraphModule":
        """Switch the graph without touching the submodules' modes."""
        self.training = mode
        graph = self.trained if mode else self.evaluated
        if graph is not self._graph:
            self.graph = graph
        return self

    def __reduce__(self) -> Any:
        root = nn.Module()
        root.__dict__.update({key: value for key, value in vars(self).items()
                              if key in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")})
        parts = [GraphModule(root, graph, self._get_name()) for graph in (self.evaluated, self.trained)]
        return _rebuild, (root, *parts, self._get_name(), self.training, dict(self.meta))


def _rebuild(root: nn.Module, evaluated: GraphModule, trained: GraphModule, name: str, training: bool,
             meta: dict[str, Any]) -> DualGraphModule:
    flags = {path: module.training for path, module in root.named_modules()}
    new = DualGraphModule(root, evaluated.graph, trained.graph, name)
    new.meta = meta
    for path, module in new.named_modules():
        if path in flags:
            module.training = flags[path]
    return new.train_flag(training)


def _adopt_missing(module: GraphModule, root: nn.Module) -> None:
    """GraphModule copies what its one graph refers to; the other graph needs the rest as well."""
    for name, child in root.named_modules():
        if not name:
            continue
        owner, _, leaf = name.rpartition(".")
        here = module.get_submodule(owner)
        if leaf not in here._modules:
            here.add_module(leaf, child)
    for name, parameter in root.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        if leaf not in module.get_submodule(owner)._parameters:
            module.get_submodule(owner).register_parameter(leaf, parameter)
    for name, buffer in root.named_buffers(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        if leaf not in module.get_submodule(owner)._buffers:
            module.get_submodule(owner).register_buffer(leaf, buffer)


def _owned(graph: Graph, module: GraphModule) -> Graph:
    graph.owning_module = module
    return graph


def unavailable(why: str) -> Graph:
    """A training graph for a model that could not be captured in training mode: it says so."""
    graph = Graph()
    graph.placeholder("args")
    graph.call_function(torch._assert, (False, f"fxprune: this model could not be captured in training mode ({why}); "
                                               "call eval() first"))
    graph.output(None)
    return graph
