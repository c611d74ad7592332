"""Expressions in a serialised program, which torch evaluates: symbols with ``sympify``, guards with ``exec``.

Both are checked as syntax trees, against lists of what torch itself writes.
"""

import ast
import re
from typing import Any

from fxprune.errors import ArtefactError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,249}")
# Letters of any string of a program.
TEXT = 10_000
# Around every refusal: what it is about, and what to do about a file of somebody else's.
DISTRUST = "model.pt2 is not trusted: "
REMEDY = "; load the folder with model=, or import its model.py if you trust it"

_SYMBOLIC = set("""Symbol Integer Float Rational Add Mul Pow Mod Max Min And Or Not Eq Ne Equality Unequality Lt Le Gt
    Ge StrictLessThan LessThan StrictGreaterThan GreaterThan floor ceiling Abs FloorDiv ModularIndexing Where PythonMod
    CleanDiv CeilToInt FloorToInt CeilDiv PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt
    RoundToInt RoundDecimal ToFloat Identity""".split())
_GUARDS = {"torch.sym_max", "torch.sym_min", "torch.sym_not", "math.floor", "math.ceil", "math.trunc", "math.sqrt"}


def refuse(where: str, why: str) -> ArtefactError:
    """The error to raise: the place, and what it does that a program need not do."""
    return ArtefactError(f"{DISTRUST}{where} {why}{REMEDY}")


def check_symbols(value: Any, key: str) -> None:
    """Constructor calls of sympy's and torch's symbols, nothing else.

    Raises:
        ArtefactError: it is anything else.

    >>> check_symbols("Mul(Integer(2), Symbol('s0', positive=True, integer=True))", "expr_str")
    """
    tree = _parsed(value, key)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name not in _SYMBOLIC:
                raise refuse(key, f"may not call {ast.unparse(node.func)[:60]!r}")
            strings = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if strings and (name != "Symbol" or len(node.args) != 1 or not NAME.fullmatch(strings[0])):
                raise refuse(key, "may hold a string only as a symbol's name")
            if name in ("Pow", "PowByNatural", "FloatPow") and not _is_small(node.args[-1]):
                raise refuse(key, "may only hold small powers")
        elif isinstance(node, ast.keyword):
            if not isinstance(node.value, ast.Constant) or not isinstance(node.value.value, bool):
                raise refuse(key, "may only state truths of symbols")
        elif isinstance(node, ast.Name):
            if node.id not in _SYMBOLIC | {"true", "false"}:
                raise refuse(key, f"may not use {node.id[:60]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node, key)
        elif not isinstance(node, (ast.Expression, ast.Load, ast.UnaryOp, ast.USub)):
            raise refuse(key, f"may not hold a {type(node).__name__}")
    for outer in ast.walk(tree):
        inner = outer.args if isinstance(outer, ast.Call) and ast.unparse(outer.func) != "Symbol" else \
            [outer.body] if isinstance(outer, ast.Expression) else []
        if any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in inner):
            raise refuse(key, "may hold a string only as a symbol's name")


def check_guard(guard: str) -> None:
    """A comparison of the inputs' sizes, as ``torch.export`` writes it: ``L['x'].size()[1] % 2 == 0``.

    Raises:
        ArtefactError: it is anything else.

    >>> check_guard("L['x'].size()[0] <= 2*L['y'].size()[1]")
    """
    allowed = (ast.Expression, ast.Load, ast.Compare, ast.BoolOp, ast.And, ast.Or, ast.Not, ast.UnaryOp, ast.USub,
               ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Eq, ast.NotEq, ast.Lt,
               ast.LtE, ast.Gt, ast.GtE, ast.Subscript)
    for node in ast.walk(_parsed(guard, "a guard")):
        if isinstance(node, ast.Name):
            if node.id not in ("L", "torch", "math"):
                raise refuse("a guard", f"may not use {node.id[:60]!r}")
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute) or node.keywords:
                raise refuse("a guard", "may only ask for sizes")
        elif isinstance(node, ast.Attribute):
            if node.attr != "size" and ast.unparse(node) not in _GUARDS:
                raise refuse("a guard", f"may not use {node.attr[:60]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node, "a guard")
        elif not isinstance(node, allowed):
            raise refuse("a guard", f"may not hold a {type(node).__name__}")


def _parsed(text: Any, key: str) -> ast.Expression:
    if not isinstance(text, str) or len(text) > TEXT:
        raise refuse(key, "must be a short expression")
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise refuse(key, f"must be an expression, got {text[:60]!r}") from None


def _constant(node: ast.Constant, key: str) -> None:
    value = node.value
    if isinstance(value, str) and NAME.fullmatch(value):
        return
    if isinstance(value, str) or not isinstance(value, (bool, int, float)) or abs(value) >= 2 ** 63:
        raise refuse(key, f"may not hold {str(value)[:60]!r}")


def _is_small(node: ast.expr) -> bool:
    inner = node.args[0] if isinstance(node, ast.Call) and node.args else node
    inner = inner.operand if isinstance(inner, ast.UnaryOp) else inner
    return isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float)) and abs(inner.value) <= 8
