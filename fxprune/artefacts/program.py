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

import re
from collections.abc import Callable
from typing import Any

import torch

from fxprune.artefacts.expressions import NAME, TEXT, check_guard, check_symbols, refuse
from fxprune.artefacts.untrusted import parsed

STATE = re.compile(r"[A-Za-z0-9_-]{1,200}(\.[A-Za-z0-9_-]{1,200}){0,60}")
# Strings that may be pasted between quotes.
WORDS = re.compile(r"[A-Za-z0-9 _.,:;<>=+*/-]{0,200}")
# Keys of a dictionary that a model returns: layers' names, numbers.
KEY = re.compile(r"[A-Za-z0-9_.-]{1,200}")
# Torch counts up to the number of a symbol.
_COUNTED = re.compile(r"[A-Za-z_]+[0-9]{6,}")
# Names that generated code uses itself.
RESERVED = {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "math"}
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
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
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
        raise refuse("the program", f"is not of the form that torch.export writes ({type(error).__name__})") from error


def _checked(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or not isinstance(document.get("graph_module"), dict):
        raise refuse("the program", "has no graph")
    document.pop("torch_version", None)
    if not set(_list(document.get("verifiers", []))) <= _VERIFIERS:
        raise refuse("verifiers", f"must be of {sorted(_VERIFIERS)}")
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
        raise refuse("treespec_namedtuple_fields", "must be empty")
    return {**document, "verifiers": verifiers, "guards_code": guards, "torch_version": "unknown"}


def _walk(value: Any, key: str) -> None:
    if key in _LEAVES:
        _LEAVES[key](value, key)
    elif isinstance(value, dict):
        _object(value, key)
    elif isinstance(value, list):
        if len(value) > NODES:
            raise refuse(key, f"must not have more than {NODES:,} entries")
        for item in value:
            _walk(item, key)
    elif isinstance(value, str):
        if value not in ("Infinity", "-Infinity"):
            raise refuse(key, f"must not be a string, got {value[:60]!r}")


def _object(value: dict[str, Any], key: str) -> None:
    if "metadata" in value:
        value["metadata"] = {}
    for name, item in value.items():
        if name == "name" and "arg" in value:
            # An operator's argument, which may be called self.
            if not isinstance(item, str) or (item and not NAME.fullmatch(item)):
                raise refuse(key, f"must be a plain name, got {str(item)[:60]!r}")
            continue
        if key in _NAMED:
            _name(name, key)
            if key == "range_constraints" and _COUNTED.fullmatch(name):
                raise refuse(key, f"must not count to {name[:60]!r}")
            _walk(item, "entry")
        elif name in _NUMBERS:
            if isinstance(item, (dict, list)):
                raise refuse(name, "must be a number")
            _walk(item, name)
        elif name in _STRUCTURE or name in _LEAVES or name == "metadata":
            _walk(item, name)
        else:
            raise refuse(key, f"holds {name[:60]!r}, which is not known to be harmless")


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
            raise refuse("an input", f"must be plain words, got {text[:60]!r}")


# -- leaves ---------------------------------------------------------------------------------------------------------


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise refuse("a list", "must hold strings")
    return value


def _name(value: Any, key: str) -> None:
    if value is None or value == "":
        return
    if not isinstance(value, str) or not NAME.fullmatch(value) or value in RESERVED or value.startswith("__"):
        raise refuse(key, f"must be a plain name, got {str(value)[:60]!r}")


def _names(value: Any, key: str) -> None:
    for item in _list(value or []):
        _name(item, key)


def _keys(value: Any, key: str) -> None:
    if not isinstance(value, list):
        raise refuse(key, "must list a dictionary's keys")
    for item in value:
        if type(item) is not int and not (isinstance(item, str) and KEY.fullmatch(item)):
            raise refuse(key, f"must be a plain name, got {str(item)[:60]!r}")


def _state(value: Any, key: str) -> None:
    if value != "" and (not isinstance(value, str) or not STATE.fullmatch(value) or "__" in value.split(".")):
        raise refuse(key, f"must be the name of a parameter or module, got {str(value)[:60]!r}")


def _text(value: Any, key: str) -> None:
    if not isinstance(value, str) or len(value) > TEXT or not value.isprintable():
        raise refuse(key, "must be a short printable string")


def _texts(value: Any, key: str) -> None:
    for item in _list(value):
        _text(item, key)


def _device(value: Any, key: str) -> None:
    if value != "cpu":
        raise refuse("a device", f"must be 'cpu', got {str(value)[:60]!r}")


def _operator(value: Any, key: str) -> None:
    if not isinstance(value, str):
        raise refuse("a target", "must be a string")
    if value in _PYTHON or value in _HIGHER:
        return
    parts = value.split(".")
    known = len(parts) == 5 and parts[:2] == ["torch", "ops"] and parts[2] in _NAMESPACES \
        and all(map(NAME.fullmatch, parts)) and parts[3] not in _REFUSED and "__" not in (parts[3][:2], parts[4][:2])
    if not known or ("unsafe" in parts[3] and parts[3] not in _UNSAFE):
        raise refuse("it", f"calls {value[:80]!r}, which is not an operator of torch.ops.aten that computes on "
                      "tensors only")
    packet = getattr(getattr(torch.ops, parts[2]), parts[3], None)
    if not isinstance(getattr(packet, parts[4], None), torch._ops.OpOverload):
        raise refuse("it", f"calls {value[:80]!r}, which this torch does not have")


def _treespec(value: Any, key: str) -> None:
    """Tuples, lists and dictionaries with plain names as keys; of outputs also with layers' names and numbers."""
    _text(value, key)
    protocol, *rest = tree if isinstance(tree := parsed(value.encode(), key), list) and tree else (None,)
    if protocol != 1 or len(rest) != 1:
        raise refuse(key, "must be of protocol 1")
    _tree(rest[0], key)


def _tree(node: Any, key: str) -> None:
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"} or \
            not isinstance(node["children_spec"], list):
        raise refuse(key, "must be a tree of containers")
    kind, context = node["type"], node["context"]
    if kind is None and context is None and not node["children_spec"]:
        return
    if not isinstance(kind, str) or kind not in _CONTAINERS or not isinstance(context, str):
        raise refuse(key, f"may only hold tuples, lists and dictionaries, got {str(kind)[:60]!r}")
    names = parsed(context.encode(), key)
    if names is not None:
        # Those of inputs are pasted into the generated forward; those of outputs only make a dictionary.
        (_names if key == "in_spec" else _keys)(names, key)
    for child in node["children_spec"]:
        _tree(child, key)


_LEAVES: dict[str, Callable[[Any, str], None]] = {
    "name": _name, "as_name": _name, "user_input_name": _name, "forward_arg_names": _names,
    "parameter_name": _state, "buffer_name": _state, "tensor_constant_name": _state, "fqn": _state,
    "target": _operator, "expr_str": check_symbols, "as_string": _text, "as_strings": _texts, "type": _device,
    "in_spec": _treespec, "out_spec": _treespec,
}
