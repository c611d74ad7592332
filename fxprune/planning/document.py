"""A plan as a JSON document that people review, and back.

The order is the reviewer's: the kept *widths* of the groups first, how the plan was drawn, what is kept of each group,
then of each parameter's dimension, and last the inputs and the signature. Objects take a line per entry, lists
stay on one line, indices are ranges (``"0-15,18"``), so that a changed width is a changed line or three. Widths are
compared with the kept channels when the document is read, and `check` compares those with ``keep``; edited widths are
for ``Plan.from_widths``, which chooses the channels.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fxprune.errors import PlanError
from fxprune.ir.frozen import thaw
from fxprune.ir.policy import POLICIES
from fxprune.ir.signature import Signature
from fxprune.planning.check import check_branches, check_indices
from fxprune.planning.group_plan import GroupPlan
from fxprune.planning.input_specs import inputs_from_json, inputs_to_json
from fxprune.planning.ranges import count, from_text, to_text
from fxprune.planning.reader import Reader

if TYPE_CHECKING:
    from fxprune.planning.pruning_plan import Plan

# Version 2 adds branches; a plan without any is written as version 1, which older releases read.
FORMAT, VERSIONS = "fxprune-plan", (1, 2)
MODES = ("graph", "module")
# In all lists of a document together: two gigabytes.
INDICES = 2 ** 26
KEYS = ("format", "version", "widths", "branches", "options", "policy", "mode", "versions", "groups", "keep", "inputs",
        "digest", "signature")


def to_dict(plan: "Plan") -> dict[str, Any]:
    """The document of a `Plan`, of dictionaries, lists, strings and numbers."""
    return {
        "format": FORMAT,
        "version": 2 if plan.branches else 1,
        "widths": dict(plan.widths),
        **({"branches": {name: list(tensors) for name, tensors in plan.branches.items()}} if plan.branches else {}),
        "options": thaw(plan.options),
        "policy": thaw(plan.policy),
        "mode": plan.mode,
        "versions": dict(plan.versions),
        "groups": {name: {"size": g.size, "kept": to_text(g.kept), "scores": list(g.scores)}
                   for name, g in plan.groups.items()},
        "keep": {name: {str(dim): to_text(indices) for dim, indices in dims.items()}
                 for name, dims in plan.keep.items()},
        "inputs": inputs_to_json(plan.inputs),
        "digest": plan.digest,
        "signature": {name: [dtype, list(shape)] for name, shape, dtype in plan.signature.entries},
    }


def fields(document: Reader) -> dict[str, Any]:
    """The fields of a `Plan`, every one checked.

    Raises:
        PlanError: with the place and the fault.
    """
    found = _fields(document)
    _check_widths(document["widths"], found["groups"])
    return found


def edited(document: Reader) -> tuple[dict[str, int], dict[str, Any]]:
    """The widths that somebody may have changed, and the fields that they may disagree with.

    Raises:
        PlanError: with the place and the fault.
    """
    found = _fields(document)
    return {name: reader.integer(1) for name, reader in document["widths"].items()}, found


def _fields(document: Reader) -> dict[str, Any]:
    if document["format"].value != FORMAT:
        raise document["format"].fail(f"must be {FORMAT!r}")
    version = document["version"].value
    if version not in VERSIONS or isinstance(version, bool):
        raise document["version"].fail("must be 1 or 2, the format versions that this fxprune reads")
    document.only(KEYS if version == 2 else tuple(key for key in KEYS if key != "branches"))
    signature = _signature(document["signature"])
    _check_room(document)
    longest = max((length for _, shape, _ in signature.entries for length in shape), default=0)
    groups = {name: _group(reader, longest) for name, reader in document["groups"].items()}
    keep = _keep(document["keep"], signature)
    check_indices(keep, signature)
    if document["mode"].value not in MODES:
        raise document["mode"].fail(f"must be one of {', '.join(map(repr, MODES))}")
    branches = _branches(document["branches"], signature) if version == 2 else {}
    return {"keep": keep, "groups": groups, "branches": branches, "signature": signature,
            "digest": document["digest"].text(), "inputs": inputs_from_json(document["inputs"]),
            "mode": document["mode"].text(), "policy": _policy(document["policy"]),
            "options": _options(document["options"]),
            "versions": {key: reader.text() for key, reader in document["versions"].items()}}


def render(value: object, indent: int = 0) -> str:
    """JSON text: objects over several lines, everything else on one.

    >>> print(render({"a": {"b": [1, 2]}, "c": {}}))
    {
      "a": {
        "b": [1, 2]
      },
      "c": {}
    }
    """
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, allow_nan=False)
    pad = " " * (indent + 2)
    lines = [f"{pad}{json.dumps(key)}: {render(item, indent + 2)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def _signature(reader: Reader) -> Signature:
    entries = []
    for name, entry in reader.items():
        parts = entry.elements()
        if len(parts) != 2:
            raise entry.fail("must be [dtype, shape]")
        entries.append((name, parts[1].shape(), parts[0].text()))
    return Signature(tuple(entries))


def _policy(reader: Reader) -> dict[str, Any]:
    reader.only((*POLICIES, "outputs"))
    found: dict[str, Any] = {}
    for key, item in reader.items():
        found[key] = tuple(name.text() for name in item.elements()) if key == "outputs" else item.text()
        if key in POLICIES and found[key] not in POLICIES[key]:
            raise reader[key].fail(f"must be one of {', '.join(map(repr, POLICIES[key]))}")
    return found


def _options(reader: Reader) -> dict[str, object]:
    found = {key: item.value for key, item in reader.items()}
    for key in ("criterion", "vote"):
        if key in found:
            reader[key].text()
    return found


def _check_room(document: Reader) -> None:
    """No more indices than memory holds, counted before any is written out."""
    lists = [group["kept"] for _, group in document["groups"].items()]
    lists += [indices for _, dims in document["keep"].items() for _, indices in dims.items()]
    total = sum(count(reader.text()) for reader in lists)
    if total > INDICES:
        raise PlanError(f"damaged plan file: all kept indices together must be at most {INDICES:,}, got {total:,}")


def _group(reader: Reader, longest: int) -> GroupPlan:
    """``longest`` of the model's dimensions: no group has more channels."""
    reader.only(("size", "kept", "scores"))
    size, scores = reader["size"].integer(1, longest), reader["scores"].numbers()
    if scores and len(scores) != size:
        raise PlanError(f"damaged plan file: {reader.path}.scores must have one score per channel ({size}), got "
                        f"{len(scores)}")
    return GroupPlan(size, _indices(reader["kept"], size), scores)


def _check_widths(reader: Reader, groups: Mapping[str, GroupPlan]) -> None:
    listed = dict(reader.items())
    for name in [*groups, *(n for n in listed if n not in groups)]:
        kept = groups[name].width if name in groups else None
        if name not in listed or kept is None or listed[name].integer(1) != kept:
            got = listed[name].value if name in listed else "no width"
            have = f"keeps {kept} channels" if kept is not None else "does not exist"
            raise PlanError(f"damaged plan file: widths[{name!r}] must agree with the groups' kept channels, got {got} "
                            f"where the group {have}; to choose widths yourself, write "
                            f"fxprune.Plan.from_widths(coupling, model, {{{name!r}: {got}}}), or give it this file")


def _keep(reader: Reader, signature: Signature) -> dict[str, dict[int, tuple[int, ...]]]:
    shapes = {name: shape for name, shape, _ in signature.entries}
    keep: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, dims in reader.items():
        keep[name] = {}
        if name not in shapes:
            raise PlanError(f"damaged plan file: {dims.path}: the signature has no parameter or buffer of that name")
        for dim, indices in dims.items():
            if dim not in map(str, range(len(shapes[name]))):
                raise PlanError(f"damaged plan file: {dims.path}: {dim!r} is not a dimension of {list(shapes[name])}")
            keep[name][int(dim)] = _indices(indices, shapes[name][int(dim)])
    return keep


def _branches(reader: Reader, signature: Signature) -> dict[str, tuple[str, ...]]:
    branches = {name: tuple(tensor.text() for tensor in listed.elements()) for name, listed in reader.items()}
    for name, tensors in branches.items():
        if not tensors or len(set(tensors)) != len(tensors):
            raise reader[name].fail("must name at least one parameter or buffer, each once")
    check_branches(branches, signature)
    return branches


def _indices(reader: Reader, length: int) -> tuple[int, ...]:
    try:
        indices = from_text(reader.text(), length)
    except ValueError as error:
        raise PlanError(f"damaged plan file: {reader.path}: {error}; restore the file, or draw the plan again with "
                        "fxprune.plan") from None
    if not indices:
        raise reader.fail("must keep at least one index")
    return indices
