"""The example inputs' specs as JSON, and back.

Plain values stand for themselves; whatever JSON lacks is an object with one telling key: ``{"tensor": "float32",
"shape": [1, 3, 32, 32]}``, ``{"tuple": […]}``, ``{"dict": [[key, value], …]}``, ``{"float": "inf"}``.
"""

import math
from collections.abc import Mapping
from typing import Any

from fxprune.errors import PlanError
from fxprune.ir.example_inputs import Inputs, TensorSpec, specs
from fxprune.planning.reader import Reader

# A name from a file is looked up in torch's namespace later: only these are dtypes of inputs.
DTYPES = frozenset([
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
    "float64", "float8_e4m3fn", "float8_e5m2", "complex32", "complex64", "complex128",
])
# Of all example inputs together: four gigabytes of single precision. They are made to analyse the model.
ELEMENTS = 2 ** 30
# PyTorch's own limit.
DIMENSIONS = 64


def inputs_to_json(inputs: Inputs) -> dict[str, Any]:
    """
    >>> inputs_to_json(Inputs((TensorSpec((1, 3), "float32"),), {"flag": True}))
    {'inferred': '', 'args': [{'tensor': 'float32', 'shape': [1, 3]}], 'kwargs': {'flag': True}}
    """
    return {"inferred": inputs.inferred, "args": [_write(v, f"args[{i}]") for i, v in enumerate(inputs.args)],
            "kwargs": {str(name): _write(value, name) for name, value in inputs.kwargs.items()}}


def inputs_from_json(reader: Reader) -> Inputs:
    """The inverse; refuses what `inputs_to_json` does not write."""
    reader.only(("inferred", "args", "kwargs"))
    inputs = Inputs(tuple(_read(element) for element in reader["args"].elements()),
                    {name: _read(element) for name, element in reader["kwargs"].items()}, reader["inferred"].text())
    elements = sum(math.prod(spec.shape) for spec in specs(inputs))
    if elements > ELEMENTS:
        raise PlanError(f"damaged plan file: the example inputs must have at most {ELEMENTS:,} elements, got "
                        f"{elements:,}; draw the plan on smaller ones")
    return inputs


def _write(value: object, place: str) -> object:
    if isinstance(value, TensorSpec):
        bounds = {"low": value.low, "high": value.high} if value.low or value.high else {}
        return {"tensor": value.dtype, "shape": list(value.shape), **bounds}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_write(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_write(item, f"{place}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key, place), _write(item, f"{place}[{key!r}]")] for key, item in value.items()]}
    raise PlanError(f"the plan's inputs must be tensors, plain values, lists, tuples and dictionaries to be saved, but "
                    f"{place} is a {type(value).__name__}; pass example_inputs without it, or wrap the model")


def _key(key: object, place: str) -> object:
    if key is None or type(key) in (bool, int, str):
        return key
    raise PlanError(f"the plan's inputs must have plain dictionary keys to be saved, but {place} has the key {key!r} "
                    f"of type {type(key).__name__}; use a string")


def _read(reader: Reader) -> object:
    if reader.value is None or isinstance(reader.value, bool | int | float | str):
        return reader.value
    if isinstance(reader.value, list):
        return [_read(element) for element in reader.elements()]
    keys = {key for key, _ in reader.items()}
    if "tensor" in keys:
        reader.only(("tensor", "shape", "low", "high"))
        if reader["tensor"].text() not in DTYPES:
            raise reader["tensor"].fail("must be the name of a dtype")
        bounds = [reader[key].integer(-2 ** 62, 2 ** 62) if key in keys else 0 for key in ("low", "high")]
        shape = tuple(size.integer(0, ELEMENTS) for size in reader["shape"].elements())
        if len(shape) > DIMENSIONS:
            raise reader["shape"].fail(f"must have at most {DIMENSIONS} dimensions")
        return TensorSpec(shape, reader["tensor"].text(), *bounds)
    if keys == {"tuple"}:
        return tuple(_read(element) for element in reader["tuple"].elements())
    if keys == {"dict"}:
        return dict(_pair(element) for element in reader["dict"].elements())
    if keys == {"float"} and reader["float"].value in ("inf", "-inf", "nan"):
        return float(reader["float"].text())
    raise reader.fail("must be an example input as fxprune writes it")


def _pair(reader: Reader) -> tuple[object, object]:
    elements = reader.elements()
    if len(elements) != 2 or isinstance(elements[0].value, list | dict):
        raise reader.fail("must be a pair of a plain key and a value")
    return elements[0].value, _read(elements[1])
