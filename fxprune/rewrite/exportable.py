"""What ``torch.export`` is given: it runs a graph on the values in their order, whatever they are called."""

import copy

from torch import nn

from fxprune.capture.call_signature import Marks, signed
from fxprune.capture.constant_arguments import as_captured
from fxprune.ir.call_arguments import arguments
from fxprune.ir.example_inputs import Example
from fxprune.rewrite.emitted import SingleGraphModule


def exportable(module: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Of an emitted module a copy that takes what the example gives, and nothing else, and the example in that order.

    A program holds its constants by itself, so that the copy does not ask for them.
    """
    if not isinstance(module, SingleGraphModule):
        return module, example
    bound = [argument for argument in arguments(module, example) if argument.given]
    names = {argument.name for argument in bound}
    copied = copy.deepcopy(module)
    for node in reversed(list(copied.graph.nodes)):
        left_out = node.op == "placeholder" and str(node.target).lstrip("*") not in names
        if node.target is as_captured or left_out and not node.users:
            copied.graph.erase_node(node)
    copied.marks = Marks.of(bound)
    signed(copied.graph, copied.marks)
    copied.recompile()
    order = {argument.name: place for place, argument in enumerate(bound)}
    kwargs = sorted(example[1].items(), key=lambda item: order.get(item[0], len(order)))
    return copied, (example[0], dict(kwargs))
