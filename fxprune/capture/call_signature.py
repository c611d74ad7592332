"""The signature of ``forward`` as a graph has it: a placeholder for each argument, with its default and its kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from torch.fx import Graph, Node
from torch.fx.graph import CodeGen

from fxprune.capture.constant_arguments import is_plain, pattern
from fxprune.ir.call_arguments import EMPTY, Argument


class Original(Enum):
    """Stands for a default that code cannot say."""

    DEFAULT = "the original's default"


STARS = {Argument.VAR_POSITIONAL: "*", Argument.VAR_KEYWORD: "**"}


@dataclass(frozen=True)
class Marks:
    """Where ``/`` and ``*`` stand in a list of arguments.

    Args:
        slash: how many arguments are taken by position only.
        star: how many stand before the first that is taken by keyword only; -1 where a ``*args`` says so, or none is.
        order: the names, where some are taken by keyword only behind ``*args``: torch.fx puts those first when it
            unpickles a graph.
    """

    slash: int = 0
    star: int = -1
    order: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Sequence[Argument]) -> "Marks":
        kinds = [argument.kind for argument in arguments]
        slash, keyword = kinds.count(Argument.POSITIONAL_ONLY), Argument.KEYWORD_ONLY in kinds
        if keyword and Argument.VAR_POSITIONAL in kinds:
            return cls(slash, order=tuple(argument.name for argument in arguments))
        return cls(slash, kinds.index(Argument.KEYWORD_ONLY) if keyword else -1)

    def among(self, arguments: list[str]) -> list[str]:
        """
        >>> Marks(1, 2).among(["x", "y=0", "flag=False"])
        ['x', '/', 'y=0', '*', 'flag=False']
        """
        marked = list(arguments)
        if self.star >= 0:
            marked.insert(self.star, "*")
        if self.slash:
            marked.insert(self.slash, "/")
        return marked


UNMARKED = Marks()


class Signed(CodeGen):
    """Writes those marks into the code of a graph, which has no place for them."""

    def __init__(self, marks: Marks):
        super().__init__()
        self.marks = marks

    def gen_fn_def(self, free_vars: list[str], *args: Any, **kwargs: Any) -> str:
        return str(super().gen_fn_def(self.marks.among(free_vars), *args, **kwargs))


def signed(graph: Graph, marks: Marks) -> Graph:
    """The same graph, whose code has these marks."""
    placeholders = {str(node.target).lstrip("*"): node for node in graph.nodes if node.op == "placeholder"}
    behind = next(node for node in graph.nodes if node.op != "placeholder")
    for name in marks.order:
        behind.prepend(placeholders[name])
    graph.set_codegen(CodeGen() if marks == UNMARKED else Signed(marks))
    return graph


def placeholder(graph: Graph, argument: Argument) -> Node:
    """A node for an argument, with the original's default as far as code can say it."""
    default = () if argument.default is EMPTY else (_written(argument.default),)
    target = STARS.get(argument.kind, "") + argument.name
    return graph.create_node("placeholder", target, default, name=argument.name)


def _written(default: Any) -> Any:
    plain = is_plain(pattern(default)) and not isinstance(default, Mapping)
    return default.item() if isinstance(default, np.generic) else default if plain else Original.DEFAULT
