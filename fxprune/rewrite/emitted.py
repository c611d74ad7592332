"""The emitted modules: GraphModules that survive copying and pickling whole, with one graph or with two.

``torch.fx.GraphModule`` forgets its ``meta`` when it is pickled, and which buffers are not persistent; of its graph
`fxprune.rewrite.graph_entries` tells.
"""

import copy
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule

from fxprune.capture.call_signature import UNMARKED, Marks, signed
from fxprune.capture.contexts import restoring
from fxprune.capture.holdings import hand_over
from fxprune.capture.torch_functions import ASSERT
from fxprune.rewrite.graph_entries import Entry, entries_of, graph_of


class SingleGraphModule(GraphModule):
    """A GraphModule with one graph.

    Args:
        root: holds all that the graph refers to, and is used up.
        graph: serves both modes.
        class_name: the name that the module shows.
        marks: which arguments are taken by position or by keyword only.
    """

    held: tuple[str, ...] = ()
    marks: Marks = UNMARKED

    def __init__(self, root: nn.Module, graph: Graph, class_name: str = "GraphModule", marks: Marks = UNMARKED):
        # An empty graph first: GraphModule would copy, one by one, what the nodes refer to.
        super().__init__(nn.Module(), Graph(), class_name)
        hand_over(root, self)
        self.marks = marks
        self.graph = signed(graph, marks)

    def recompile(self) -> Any:
        code = super().recompile()
        type(self).forward = restoring(type(self).forward, self.graph)
        return code

    def _graphs(self) -> tuple[Graph, ...]:
        return (self.graph,)

    def _switch(self, mode: bool) -> "SingleGraphModule":
        self.training = mode
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "SingleGraphModule":
        graphs = copy.deepcopy(self._graphs(), memo)
        new = _rebuild(copy.deepcopy(self._root(), memo), graphs, type(self).__name__, self.marks, self.held,
                       self.training, copy.copy(self.meta))
        memo[id(self)] = new
        return new

    def __reduce__(self) -> Any:
        entries = tuple(map(entries_of, self._graphs()))
        return _loaded, (self._root(), entries, type(self).__name__, self.marks, self.held, self.training,
                         copy.copy(self.meta))

    def _root(self) -> nn.Module:
        return hand_over(self, nn.Module())


class DualGraphModule(SingleGraphModule):
    """A GraphModule whose ``graph`` is the training graph in training mode and the inference graph otherwise.

    Args:
        root: holds all that either graph refers to.
        evaluated, trained: the graphs; may be the same.
        class_name: the name that the module shows.
        marks: which arguments are taken by position or by keyword only.
        held: submodules that stay in inference mode when the whole is set to train, as the original's own ``train``
            keeps them.
        training: the mode to begin with.
    """

    def __init__(self, root: nn.Module, evaluated: Graph, trained: Graph, class_name: str = "GraphModule",
                 marks: Marks = UNMARKED, held: tuple[str, ...] = (), training: bool = True):
        super().__init__(root, trained if training else evaluated, class_name, marks)
        self.evaluated, self.trained, self.held = signed(evaluated, marks), signed(trained, marks), held
        evaluated.owning_module = trained.owning_module = self
        self.train(training)

    def train(self, mode: bool = True) -> "DualGraphModule":
        super().train(mode)
        for name in self.held:
            self.get_submodule(name).eval()
        return self._switch(mode)

    def _switch(self, mode: bool) -> "DualGraphModule":
        """Take the graph of that mode, and leave the submodules' modes alone."""
        self.training = mode
        graph = self.trained if mode else self.evaluated
        if graph is not self.graph:
            self.graph = graph
        return self

    def _graphs(self) -> tuple[Graph, ...]:
        return (self.evaluated, self.trained)


def _loaded(root: nn.Module, entries: tuple[tuple[Entry, ...], ...], *rest: Any) -> SingleGraphModule:
    return _rebuild(root, tuple(map(graph_of, entries)), *rest)


def _rebuild(root: nn.Module, graphs: tuple[Graph, ...], name: str, marks: Marks, held: tuple[str, ...],
             training: bool, meta: dict[str, Any]) -> SingleGraphModule:
    """A copy with the submodules' modes as they were."""
    modes = {path: module.training for path, module in root.named_modules() if path}
    new = SingleGraphModule(root, graphs[0], name, marks) if len(graphs) == 1 \
        else DualGraphModule(root, graphs[0], graphs[1], name, marks, held, training)
    new.meta = meta
    for path, mode in modes.items():
        new.get_submodule(path).training = mode
    return new._switch(training)


def unavailable(why: str, evaluated: Graph) -> Graph:
    """A training graph for a model that could not be captured in training mode: it takes what the other takes, and says
    so."""
    graph = Graph()
    for node in evaluated.nodes:
        if node.op == "placeholder":
            graph.node_copy(node)
    graph.call_function(ASSERT, (False, f"fxprune: this model could not be captured in training mode ({why}); "
                                               "call eval() first"))
    graph.output(None)
    return graph


def graphs_of(module: GraphModule) -> tuple[Graph, ...]:
    """The distinct graphs of an emitted module, or the graph of any other.

    A function, since a public method would hide a submodule of that name.
    """
    return tuple(dict.fromkeys(module._graphs())) if isinstance(module, SingleGraphModule) else (module.graph,)


def marks_of(module: GraphModule) -> Marks:
    """Which of its arguments are taken by position or by keyword only."""
    return module.marks if isinstance(module, SingleGraphModule) else UNMARKED
