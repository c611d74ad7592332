"""The configuration that says a smaller model: found, and proven by building from it.

transformers, diffusers and classes with huggingface_hub's mixin build a model from a configuration, and
`from_pretrained` builds it anew. So widths must be what a configuration can say. Its integers that equal an old width
are changed until the class, built on the meta device, has exactly the result's tensors, and every number that its
modules hold is the result's: the same shapes with another count of heads, or another scale, would be another model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import nn

from fxprune.capture.holdings import HOLDINGS, transient_buffers
from fxprune.capture.model_walk import named_modules, named_tensors
from fxprune.capture.randomness import untouched_rng
from fxprune.capture.sizes import Attribute
from fxprune.errors import UnsupportedError
from fxprune.rewrite.configurations import Field, Package, package_of

# How many models are built to find one.
TRIES = 200
# Attributes that runs read, by the paths of their modules and their keys there.
Read = Collection[tuple[str, tuple[Any, ...]]]


class Refusal:
    """In the place of a result's ``save_pretrained``, where no configuration says what it is; in a pickle, which loads
    without fxprune, its mere words."""

    def __init__(self, why: str):
        self.why = why

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise UnsupportedError(self.why)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Refusal":
        return self

    def __reduce__(self) -> Any:
        return str, (self.why,)


def settle_config(model: nn.Module, small: nn.Module, cut: Iterable[str], read: Collection[Attribute] = ()) -> None:
    """Give a smaller model the configuration that says it or, where there is none, a ``save_pretrained`` that refuses.

    Args:
        model: the original; one that no package builds from a configuration is left alone.
        small: its smaller copy.
        cut: names of the tensors that were cut.
        read: the attributes that runs read, in the original: the result's are right, changed or not.
    """
    package = package_of(model)
    if package is None:
        return
    transient = {f"{path}.{name}".lstrip(".") for path, module in named_modules(model)
                 for name in transient_buffers(module)}
    lost = sorted(transient.intersection(cut))
    found, left = (None, [f"{lost[0]} is computed anew, whole"]) if lost else \
        _found(model, small, package, {(at.module, at.keys) for at in read})
    if found is None or found.built is None:
        more = f" (and {len(left) - 3} more)" if len(left) > 3 else ""
        vars(small)["save_pretrained"] = Refusal(
            f"save_pretrained writes what a configuration says, and none of {package.name(model)} says this "
            f"result: {'; '.join(left[:3])}{more}. Pass uniform=True and policy=fxprune.Policy(heads=\"whole\") to "
            "fxprune.compress, or write fxprune.save(small, folder)")
        return
    package.state(small, found.changes)
    for path, module in named_modules(small):
        _complete(module, found.built.get_submodule(path), model.get_submodule(path))


@dataclass(frozen=True)
class Candidate:
    """A configuration's changed fields, the model that is built from it, and what is not the result's in that."""

    changes: Mapping[Field, Any]
    built: nn.Module | None
    left: list[str]


def _found(model: nn.Module, small: nn.Module, package: Package, read: Read) -> tuple[Candidate | None, list[str]]:
    """The candidate that is exactly the result, or what stands in the way of the nearest.

    One field is changed at a time, or two where one alone brings nothing nearer: a width and its number of heads.
    """
    options = [(field, value) for field, values in _options(model, small, package).items() for value in (None, *values)]
    nearest, refused = _tried(model, small, package, read, {}), ""
    steps = _steps(options)
    for _ in range(TRIES):
        step = next(steps, None)
        if step is None or not nearest.left:
            break
        said = {field: value for field, value in {**nearest.changes, **dict(step)}.items() if value is not None}
        tried = _tried(model, small, package, read, said)
        refused = tried.left[0] if tried.built is None else refused
        if len(tried.left) < len(nearest.left) and tried.built is not None:
            nearest, steps = tried, _steps(options)
    return (None, [*filter(None, [refused]), *nearest.left]) if nearest.left else (nearest, [])


def _steps(options: Sequence[tuple[Field, Any]]) -> Iterator[tuple[tuple[Field, Any], ...]]:
    """One option at a time, then two of different fields."""
    yield from ((option,) for option in options)
    yield from (pair for pair in combinations(options, 2) if pair[0][0] != pair[1][0])


def _tried(model: nn.Module, small: nn.Module, package: Package, read: Read, changes: Mapping[Field, Any]) -> Candidate:
    try:
        with untouched_rng(), torch.device("meta"), torch.no_grad():
            built = package.build(model, changes)
    except Exception as error:  # not every combination of numbers makes a model
        why = " ".join(str(error).split())
        return Candidate(changes, None, [f"{type(error).__name__}: {why}"])
    return Candidate(changes, built, list(_differences(model, small, built, read)))


def _options(model: nn.Module, small: nn.Module, package: Package) -> dict[Field, list[int]]:
    """The configuration's integers that equal an old width, a number that a module holds, or how often one goes into
    the other (heads into a width), and what those have become."""
    originals, before = dict(named_tensors(model)), dict(named_modules(model))
    sizes = {number for _, module in named_modules(model) for number in _integers(module).values() if number > 1}
    lengths = {pair for name, tensor in named_tensors(small)
               for pair in zip(originals[name].shape, tensor.shape, strict=True)}
    became = {(old // size, new // size) for old, new in lengths for size in (1, *sizes)
              if old % size == new % size == 0}
    for path, module in named_modules(small):
        old = _integers(before[path])
        became |= {(old[name], number) for name, number in _integers(module).items() if name in old}
    found = {}
    for field, number in _fields(package.fields(model), ()):
        values = sorted({new for old, new in became if old == number and 0 < new != number})
        if values:
            found[field] = values
    return found


def _integers(module: nn.Module) -> dict[str, int]:
    return {name: number for name, number in _numbers(module) if isinstance(number, int)}


def _fields(config: Mapping[str, Any], path: Field) -> Iterator[tuple[Field, int]]:
    for name, value in config.items():
        if type(value) is int:
            yield (*path, name), value
        elif isinstance(value, Mapping):
            yield from _fields({key: item for key, item in value.items() if isinstance(key, str)}, (*path, name))
        elif isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
            yield from (((*path, name, index), item) for index, item in enumerate(value))


def _differences(model: nn.Module, small: nn.Module, built: nn.Module, read: Read) -> Iterator[str]:
    """What a model that was built is not like the result in."""
    wanted, got = ({name: tuple(tensor.shape) for name, tensor in named_tensors(net)} for net in (small, built))
    for name in dict.fromkeys((*wanted, *got)):
        if wanted.get(name) != got.get(name):
            yield f"{name} has shape {list(wanted.get(name, ()))} here and {list(got.get(name, ()))} there"
    built_modules = dict(named_modules(built))
    for path, module in named_modules(small):
        theirs = dict(_numbers(built_modules[path])) if path in built_modules else {}
        before = dict(_numbers(model.get_submodule(path)))
        for name, number in _numbers(module):
            decided = isinstance(number, float) or number != before.get(name) or (path, (name,)) in read
            if decided and theirs.get(name) != number:
                yield f"{path}.{name} is {number} here and {theirs.get(name)} there".lstrip(".")


def _numbers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The numbers that a module holds, and tuples of them."""
    for name, value in vars(module).items():
        if name in HOLDINGS or isinstance(value, bool):
            continue
        if isinstance(value, (int, float)) or isinstance(value, tuple) and value and all(
                isinstance(item, (int, float)) for item in value):
            yield name, value


def _complete(module: nn.Module, built: nn.Module, original: nn.Module) -> None:
    """Numbers that no captured call reads, as the class itself computes them from the configuration."""
    theirs, before = dict(_numbers(built)), dict(_numbers(original))
    for name, number in _numbers(module):
        if number == before.get(name) and name in theirs:
            vars(module)[name] = theirs[name]
