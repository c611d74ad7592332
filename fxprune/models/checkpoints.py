"""Checkpoints as training scripts write them: state dicts in containers, under prefixes, beside other things.

Nothing in a file is executed. What is chosen, stripped or left out is said, and nothing else is guessed.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxprune.errors import InputError, unknown

# Keys that hold a state dict, the most likely first; and the letters that mark a moving average of one.
CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "network", "module", "weights", "params")
AVERAGED = "ema"
# What wrappers write in front of every name: DataParallel, Lightning and the like, torch.compile.
PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
# What an averaged model keeps beside its weights.
COUNTER = "n_averaged"
DEPTH = 3

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Fit:
    """How a state dict and a model's differ: names only one of them has, and tensors of unlike shapes."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unlike: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def load_weights(model: nn.Module, path: str | os.PathLike, key: str | None = None, strict: bool = True) -> str:
    """Read a checkpoint into the model; nothing in the file is executed.

    Args:
        model: it is changed.
        path: a safetensors file, or one that ``torch.save`` wrote.
        key: of the state dict in the file, with dots between levels; the most likely one where None.
        strict: every tensor must fit; otherwise those that fit are read, and the rest is named.

    Returns:
        What was read, in words.

    Raises:
        InputError: the file cannot be read, or does not fit the model.
    """
    place = os.fspath(path)
    state, said = _chosen(dict(_states(_read(Path(path)))), place, key)
    own = model.state_dict(keep_vars=True)
    state, stripped = _stripped(state, set(own))
    # A tensor under several names is stored once (safetensors), and serves all of them.
    state |= {name: state[given] for names in _shared(own) for given in names if given in state
              for name in names if name not in state}
    said += [f"prefix {prefix!r} stripped" for prefix in stripped]
    if COUNTER in state and COUNTER not in own:
        del state[COUNTER]
    fit = _fit(state, own)
    if strict and (fit.missing or fit.extra or fit.unlike):
        raise InputError(_misfit(fit, place))
    good = {name: tensor for name, tensor in state.items() if name in own and name not in fit.unlike}
    if not good:
        raise InputError(f"no tensor of {place!r} fits the model, whose names are like {_some(list(own))}, and the "
                         f"file's like {_some(list(state))}; is it of another model?")
    model.load_state_dict(good, strict=False)
    return "; ".join([f"weights from {place}", *said, *_left_out(fit)])


# -- reading --------------------------------------------------------------------------------------------------------


def _shared(state: Mapping[str, Any]) -> list[list[str]]:
    """The names of each tensor that a state dict holds."""
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def _read(path: Path) -> Any:
    place = os.fspath(path)
    if not path.is_file():
        raise InputError(f"weights must be a file or 'pretrained', but there is no file at {place!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(_unreadable(path)) from error


def _unreadable(path: Path) -> str:
    place = os.fspath(path)
    objects = _objects(path)
    if objects:
        what = "arguments" if all("Namespace" in name for name in objects) else "a whole model, or other objects"
        return (f"weights must be a state dict, but {place!r} holds {what} of Python ({_some(objects)}), and reading "
                "them can run code; where you trust the file, write its tensors alone: saved = torch.load(path, "
                "weights_only=False); torch.save(saved['model'], new_path), or saved.state_dict() where it is a model")
    with open(path, "rb") as file:
        start = file.read(64)
    kinds = {b"version https://git-lfs": "a pointer of Git LFS (run git lfs pull)", b"<": "a web page",
             b"PK": "cut short, or another kind of archive", b"": "empty"}
    kind = next((words for mark, words in kinds.items() if start.startswith(mark) and (mark or not start)), "neither")
    return f"weights must be a safetensors file or one that torch.save wrote, but {place!r} is {kind}"


def _objects(path: Path) -> list[str]:
    """What a pickle would make besides tensors, found without making it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        # No checkpoint at all; which is said for another reason.
        return []


# -- choosing -------------------------------------------------------------------------------------------------------


def _states(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Key -> state dict, for all that a file holds."""
    if not isinstance(value, Mapping) or depth > DEPTH:
        return
    tensors = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, torch.Tensor)}
    if tensors:
        yield key, tensors
    for name, item in value.items():
        if isinstance(name, str):
            yield from _states(item, f"{key}.{name}" if key else name, depth + 1)


def _chosen(states: dict[str, State], place: str, key: str | None) -> tuple[State, list[str]]:
    if key is not None:
        if key not in states:
            raise InputError(f"{place!r}: {unknown('key', key, states)}")
        return states[key], [f"key {key!r}"]
    if not states:
        raise InputError(f"weights must be a state dict, names to tensors, but {place!r} holds none; save "
                         "model.state_dict()")
    ranked = sorted(states, key=lambda name: (_rank(name), -len(states[name])))
    first, others = ranked[0], [name for name in ranked[1:] if 2 * len(states[name]) >= len(states[ranked[0]])]
    said = [f"key {first!r}"] if first else []
    return states[first], said + [f"there is also {name!r} (--key {name})" for name in others]


def _rank(key: str) -> tuple[bool, bool, int]:
    """A moving average after what it averages, an optimizer last, the known containers first."""
    parts = key.split(".")
    known = [CONTAINERS.index(part) for part in parts if part in CONTAINERS]
    return "optimizer" in key, AVERAGED in key.lower(), -1 if not key else known[0] if known else len(CONTAINERS)


def _stripped(state: State, own: set[str]) -> tuple[State, list[str]]:
    """Without the prefixes that the model's own names do not have."""
    done: list[str] = []
    while True:
        found = {prefix: _without(state, prefix) for prefix in PREFIXES}
        # A prefix that makes two names one is none.
        found = {prefix: short for prefix, short in found.items() if len(short) == len(state)}
        fitting = {prefix: len(own & set(short)) for prefix, short in found.items()}
        best = max(fitting, key=lambda prefix: fitting[prefix], default="")
        if not best or fitting[best] <= len(own & set(state)):
            # Perhaps one of several: whatever stands in front of every name, and of none of the model's.
            best = next((prefix for prefix in found if all(name.startswith(prefix) for name in state)
                         and not any(name.startswith(prefix) for name in own)), "")
        if not best or not state:
            return state, done
        state = found[best]
        done.append(best)


def _without(state: State, prefix: str) -> State:
    """``torch.compile`` of a part leaves its prefix in the middle of names."""
    if prefix == "_orig_mod.":
        return {name.replace(prefix, ""): tensor for name, tensor in state.items()}
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


# -- fitting --------------------------------------------------------------------------------------------------------


def _fit(state: State, own: Mapping[str, Any]) -> _Fit:
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items() if isinstance(tensor, torch.Tensor)}
    unlike = {name: (tuple(state[name].shape), shape) for name, shape in shapes.items()
              if name in state and tuple(state[name].shape) != shape}
    return _Fit(tuple(n for n in shapes if n not in state), tuple(n for n in state if n not in own), unlike)


def _misfit(fit: _Fit, place: str) -> str:
    words = [f"{what} {_some(list(names))}" for what, names in (("lacks", fit.missing), ("has besides", fit.extra))
             if names]
    if words:
        return (f"a checkpoint must hold exactly the model's state_dict, but {place!r} {' and '.join(words)}; is it of "
                "another model? --no-strict (strict=False) reads what fits")
    name, (theirs, ours) = next(iter(fit.unlike.items()))
    said = (f"a checkpoint must hold the model's shapes, but in {place!r} {name!r} is {list(theirs)} and the model's "
            f"is {list(ours)}")
    classes = {a[0] for a, b in fit.unlike.values() if a and b and a[1:] == b[1:]}
    # The last layers alone, and only in what they put out.
    if len(classes) == 1 and all(a[1:] == b[1:] for a, b in fit.unlike.values()):
        return (f"{said}: a head of another size; give --num-classes {classes.pop()} (num_classes=), or --no-strict "
                "(strict=False) to leave the head as it is")
    return f"{said} ({len(fit.unlike)} differ); is it of another model?"


def _left_out(fit: _Fit) -> list[str]:
    """What was not read, where that is allowed."""
    parts = (("not in the file, left as they were", fit.missing), ("not in the model, passed over", fit.extra),
             ("of another shape, left as they were", tuple(fit.unlike)))
    return [f"{what}: {_some(list(names))}" for what, names in parts if names]


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f", … ({len(names)} in all)" if len(names) > 3 else "")
