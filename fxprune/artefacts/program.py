"""Is a serialised ``torch.export`` program only a program? Everything in it is checked before torch reads it.

The installed torch (2.15) trusts these parts of a ``.pt2`` file, each of which can run code:

=====================  ================================================================================================
part                   what torch does with it
=====================  ================================================================================================
``use_pickle`` weights ``torch.load(weights_only=False)``; so for legacy ``.pt`` weights and constants, and for sample
                       inputs that ``weights_only=True`` refuses
``custom_obj_*``,      unpickled
``opaque_obj_*``
``data/aotinductor/``  a shared library, loaded
``target``,            resolved by ``getattr`` from ``torch``, ``operator``, ``math``: ``torch.hub.load`` is one
``as_operator``
``expr_str``           ``sympy.sympify``, which is ``eval``
``guards_code``        ``exec``
names of values        pasted into the generated ``forward``; a string input's value into the guards
``in_spec``            may name an enum, whose module is imported
=====================  ================================================================================================

What is allowed is therefore listed here, and all the rest refused. Metadata (stack traces with the paths of the machine
that exported, names of modules) is not needed to run a program, and dropped.
"""

import ast
import re
from collections.abc import Callable
from typing import Any

import torch

from fxprune.artefacts.untrusted import parsed
from fxprune.errors import ArtefactError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,249}")
STATE = re.compile(r"[A-Za-z0-9_]{1,200}(\.[A-Za-z0-9_]{1,200}){0,60}")
# Strings that may be pasted between quotes.
WORDS = re.compile(r"[A-Za-z0-9 _.,:;<>=+*/-]{0,200}")
# Torch counts up to the number of a symbol.
_COUNTED = re.compile(r"[A-Za-z_]+[0-9]{6,}")
# Names that generated code uses itself.
RESERVED = {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "math"}
TEXT = 10_000
NODES = 1_000_000

_NAMESPACES = {"aten", "torchvision"}
# Operators that touch files, memory of others, or a tensor's storage.
_REFUSED = set("""from_file set_ set set_data data resize_ resize resize_as_ pin_memory _pin_memory record_stream _print
    save _reshape_alias _reinterpret_tensor""".split())
# "Unsafe" of these only says that they are views of one memory; of all others, that indices are not checked.
_UNSAFE = {"_unsafe_view", "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes"}
_PYTHON = {f"_operator.{name}" for name in ("add sub mul floordiv truediv mod pow neg pos eq ne lt le gt ge and_ or_ "
                                            "getitem lshift rshift").split()}
_PYTHON |= {"math.trunc", "math.ceil", "math.floor", "torch.sym_not", "torch.sym_int", "torch.sym_float",
            "torch.sym_ite", "torch.sym_max", "torch.sym_min", "torch.sym_sqrt"}
_HIGHER = {f"torch.ops.higher_order.{name}" for name in ("wrap_with_set_grad_enabled", "wrap_with_autocast")}
_SYMBOLIC = set("""Symbol Integer Float Rational Add Mul Pow Mod Max Min And Or Not Eq Ne Equality Unequality Lt Le Gt
    Ge StrictLessThan LessThan StrictGreaterThan GreaterThan floor ceiling Abs FloorDiv ModularIndexing Where PythonMod
    CleanDiv CeilToInt FloorToInt CeilDiv PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt
    RoundToInt RoundDecimal ToFloat Identity""".split())
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_GUARDS = {"torch.sym_max", "torch.sym_min", "torch.sym_not", "math.floor", "math.ceil", "math.trunc", "math.sqrt"}
_IMMUTABLE = re.compile(r"torch\.fx\.immutable_collections\.immutable_(list|dict)")
_VERIFIERS = {"TRAINING", "ATEN"}

# Keys of the document that hold a list or an object, which is walked.
_STRUCTURE = set("""graph_module opset_version range_constraints schema_version guards_code graph signature
    module_call_graph treespec_namedtuple_fields inputs outputs nodes tensor_values sym_int_values sym_bool_values
    sym_float_values custom_obj_values sizes strides storage_offset device arg value hint input_specs output_specs
    user_input parameter buffer tensor_constant constant_input user_output buffer_mutation user_input_mutation
    as_tensor as_tensors as_ints as_floats as_bools as_sym_int as_sym_ints as_sym_float as_sym_floats as_sym_bool
    as_sym_bools as_device as_optional_tensors as_optional_tensor as_complex as_nested_tensors as_int_lists
    as_float_lists as_string_to_argument as_graph as_expr""".split())
# Keys that hold one number, truth value or nothing.
_NUMBERS = set("""as_none as_int as_float as_bool as_scalar_type as_memory_format as_layout dtype layout requires_grad
    index kind is_hop_single_tensor_return is_single_tensor_return persistent min_val max_val major minor real
    imag""".split())
# Objects whose keys are names of values.
_NAMED = {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values",
          "range_constraints", "opset_version", "as_string_to_argument"}


def checked_program(raw: bytes) -> dict[str, Any]:
    """The document of a program, without its metadata.

    Raises:
        ArtefactError: it holds anything that is not known to be harmless.
    """
    document = parsed(raw, "model.pt2's program")
    try:
        return _checked(document)
    except (AttributeError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise _refuse("the program", f"is not of the form that torch.export writes ({type(error).__name__})") from error


def _checked(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or not isinstance(document.get("graph_module"), dict):
        raise _refuse("the program", "has no graph")
    document.pop("torch_version", None)
    if not set(_list(document.get("verifiers", []))) <= _VERIFIERS:
        raise _refuse("verifiers", f"must be of {sorted(_VERIFIERS)}")
    verifiers = document.pop("verifiers", [])
    if document.get("guards_code"):
        for guard in _list(document["guards_code"]):
            check_guard(guard)
    guards = document.pop("guards_code", [])
    module = document["graph_module"]
    module["metadata"] = {}
    _plain_containers(module)
    _walk(document, "program")
    _inputs_are_plain(module)
    if module.get("treespec_namedtuple_fields"):
        raise _refuse("treespec_namedtuple_fields", "must be empty")
    return {**document, "verifiers": verifiers, "guards_code": guards, "torch_version": "unknown"}


def _refuse(where: str, why: str) -> ArtefactError:
    return ArtefactError(f"model.pt2 is not trusted: {where} {why}; load the folder with model=, or import its "
                         "model.py if you trust it")


def _walk(value: Any, key: str) -> None:
    if key in _LEAVES:
        _LEAVES[key](value, key)
    elif isinstance(value, dict):
        _object(value, key)
    elif isinstance(value, list):
        if len(value) > NODES:
            raise _refuse(key, f"must not have more than {NODES:,} entries")
        for item in value:
            _walk(item, key)
    elif isinstance(value, str):
        if value not in ("Infinity", "-Infinity"):
            raise _refuse(key, f"must not be a string, got {value[:60]!r}")


def _object(value: dict[str, Any], key: str) -> None:
    if "metadata" in value:
        value["metadata"] = {}
    for name, item in value.items():
        if name == "name" and "arg" in value:
            # An operator's argument, which may be called self.
            if not isinstance(item, str) or (item and not NAME.fullmatch(item)):
                raise _refuse(key, f"must be a plain name, got {str(item)[:60]!r}")
            continue
        if key in _NAMED:
            _name(name, key)
            if key == "range_constraints" and _COUNTED.fullmatch(name):
                raise _refuse(key, f"must not count to {name[:60]!r}")
            _walk(item, "entry")
        elif name in _NUMBERS:
            if isinstance(item, (dict, list)):
                raise _refuse(name, "must be a number")
            _walk(item, name)
        elif name in _STRUCTURE or name in _LEAVES or name == "metadata":
            _walk(item, name)
        else:
            raise _refuse(key, f"holds {name[:60]!r}, which is not known to be harmless")


def _plain_containers(module: dict[str, Any]) -> None:
    """A graph's own lists and dictionaries are immutable, and come out as plain ones."""
    for entry in module.get("module_call_graph", []):
        signature = entry.get("signature") if isinstance(entry, dict) else None
        for key in ("in_spec", "out_spec"):
            if isinstance(signature, dict) and isinstance(signature.get(key), str):
                signature[key] = _IMMUTABLE.sub(r"builtins.\1", signature[key])


def _inputs_are_plain(module: dict[str, Any]) -> None:
    """Strings that are inputs are pasted into code."""
    signature = module.get("signature", {})
    constants = [spec["constant_input"] for spec in signature.get("input_specs", []) if "constant_input" in spec]
    for item in (*module.get("graph", {}).get("inputs", []), *(c.get("value", {}) for c in constants)):
        text = item.get("as_string") if isinstance(item, dict) else None
        if text is not None and not WORDS.fullmatch(text):
            raise _refuse("an input", f"must be plain words, got {text[:60]!r}")


# -- leaves ---------------------------------------------------------------------------------------------------------


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _refuse("a list", "must hold strings")
    return value


def _name(value: Any, key: str) -> None:
    if value is None or value == "":
        return
    if not isinstance(value, str) or not NAME.fullmatch(value) or value in RESERVED or value.startswith("__"):
        raise _refuse(key, f"must be a plain name, got {str(value)[:60]!r}")


def _names(value: Any, key: str) -> None:
    for item in _list(value or []):
        _name(item, key)


def _state(value: Any, key: str) -> None:
    if value != "" and (not isinstance(value, str) or not STATE.fullmatch(value) or "__" in value.split(".")):
        raise _refuse(key, f"must be the name of a parameter or module, got {str(value)[:60]!r}")


def _text(value: Any, key: str) -> None:
    if not isinstance(value, str) or len(value) > TEXT or not value.isprintable():
        raise _refuse(key, "must be a short printable string")


def _texts(value: Any, key: str) -> None:
    for item in _list(value):
        _text(item, key)


def _device(value: Any, key: str) -> None:
    if value != "cpu":
        raise _refuse("a device", f"must be 'cpu', got {str(value)[:60]!r}")


def _operator(value: Any, key: str) -> None:
    if not isinstance(value, str):
        raise _refuse("a target", "must be a string")
    if value in _PYTHON or value in _HIGHER:
        return
    parts = value.split(".")
    known = len(parts) == 5 and parts[:2] == ["torch", "ops"] and parts[2] in _NAMESPACES \
        and all(map(NAME.fullmatch, parts)) and parts[3] not in _REFUSED and "__" not in (parts[3][:2], parts[4][:2])
    if not known or ("unsafe" in parts[3] and parts[3] not in _UNSAFE):
        raise _refuse("it", f"calls {value[:80]!r}, which is not an operator of torch.ops.aten that computes on "
                      "tensors only")
    packet = getattr(getattr(torch.ops, parts[2]), parts[3], None)
    if not isinstance(getattr(packet, parts[4], None), torch._ops.OpOverload):
        raise _refuse("it", f"calls {value[:80]!r}, which this torch does not have")


def _expression(value: Any, key: str) -> None:
    """Constructor calls of sympy's and torch's symbols, nothing else."""
    tree = _parsed(value, key)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name not in _SYMBOLIC:
                raise _refuse(key, f"may not call {ast.unparse(node.func)[:60]!r}")
            strings = [a for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if strings and (name != "Symbol" or len(node.args) != 1 or not NAME.fullmatch(strings[0].value)):
                raise _refuse(key, "may hold a string only as a symbol's name")
            if name in ("Pow", "PowByNatural", "FloatPow") and not _is_small(node.args[-1]):
                raise _refuse(key, "may only hold small powers")
        elif isinstance(node, ast.keyword):
            if not isinstance(node.value, ast.Constant) or not isinstance(node.value.value, bool):
                raise _refuse(key, "may only state truths of symbols")
        elif isinstance(node, ast.Name):
            if node.id not in _SYMBOLIC | {"true", "false"}:
                raise _refuse(key, f"may not use {node.id[:60]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node, key)
        elif not isinstance(node, (ast.Expression, ast.Load, ast.UnaryOp, ast.USub)):
            raise _refuse(key, f"may not hold a {type(node).__name__}")
    for outer in ast.walk(tree):
        inner = outer.args if isinstance(outer, ast.Call) and outer.func.id != "Symbol" else \
            [outer.body] if isinstance(outer, ast.Expression) else []
        if any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in inner):
            raise _refuse(key, "may hold a string only as a symbol's name")


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
                raise _refuse("a guard", f"may not use {node.id[:60]!r}")
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute) or node.keywords:
                raise _refuse("a guard", "may only ask for sizes")
        elif isinstance(node, ast.Attribute):
            if node.attr != "size" and ast.unparse(node) not in _GUARDS:
                raise _refuse("a guard", f"may not use {node.attr[:60]!r}")
        elif isinstance(node, ast.Constant):
            _constant(node, "a guard")
        elif not isinstance(node, allowed):
            raise _refuse("a guard", f"may not hold a {type(node).__name__}")


def _parsed(text: Any, key: str) -> ast.Expression:
    if not isinstance(text, str) or len(text) > TEXT:
        raise _refuse(key, "must be a short expression")
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refuse(key, f"must be an expression, got {text[:60]!r}") from None


def _constant(node: ast.Constant, key: str) -> None:
    value = node.value
    if isinstance(value, str) and NAME.fullmatch(value):
        return
    if isinstance(value, str) or not isinstance(value, (bool, int, float)) or abs(value) >= 2 ** 63:
        raise _refuse(key, f"may not hold {str(value)[:60]!r}")


def _is_small(node: ast.expr) -> bool:
    inner = node.args[0] if isinstance(node, ast.Call) and node.args else node
    inner = inner.operand if isinstance(inner, ast.UnaryOp) else inner
    return isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float)) and abs(inner.value) <= 8


def _treespec(value: Any, key: str) -> None:
    """Tuples, lists and dictionaries with plain names as keys."""
    _text(value, key)
    protocol, *rest = tree if isinstance(tree := parsed(value.encode(), key), list) and tree else (None,)
    if protocol != 1 or len(rest) != 1:
        raise _refuse(key, "must be of protocol 1")
    _tree(rest[0], key)


def _tree(node: Any, key: str) -> None:
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"} or \
            not isinstance(node["children_spec"], list):
        raise _refuse(key, "must be a tree of containers")
    kind, context = node["type"], node["context"]
    if kind is None and context is None and not node["children_spec"]:
        return
    if not isinstance(kind, str) or kind not in _CONTAINERS or not isinstance(context, str):
        raise _refuse(key, f"may only hold tuples, lists and dictionaries, got {str(kind)[:60]!r}")
    names = parsed(context.encode(), key)
    if names is not None:
        _names(names, key)
    for child in node["children_spec"]:
        _tree(child, key)


_LEAVES: dict[str, Callable[[Any, str], None]] = {
    "name": _name, "as_name": _name, "user_input_name": _name, "forward_arg_names": _names,
    "parameter_name": _state, "buffer_name": _state, "tensor_constant_name": _state, "fqn": _state,
    "target": _operator, "expr_str": _expression, "as_string": _text, "as_strings": _texts, "type": _device,
    "in_spec": _treespec, "out_spec": _treespec,
}
