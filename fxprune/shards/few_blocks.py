"""A plan for a model that does not fit, proven on instances of it that have few of its blocks.

Networks that do not fit are stacks of blocks. An instance has every block's form and every way that the plan cuts it at
least once, two blocks of a form where there are two, everything around the stacks, the model's own widths, and random
weights. It is cut as the plan cuts the whole, tensor by tensor, and verified as any other result.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.model_walk import aliases, named_modules, named_tensors, signature_of
from fxprune.coupling.coupling import Coupling
from fxprune.errors import CaptureError, InputError, VerificationError
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.policy import Policy
from fxprune.ir.trees import tensors_in
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import Plan
from fxprune.rewrite.folding import Folded
from fxprune.verification import Verification, check

# Blocks of a form in an instance: one behind another shows what one hands to the next.
ABREAST = 2
SEED = 0

Blocks = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Instance:
    """One that was verified.

    Args:
        blocks: stack -> the numbers of its blocks that the instance has.
        parameters: of the instance.
        verification: what was compared.
    """

    blocks: Blocks
    parameters: int
    verification: Verification


@dataclass(frozen=True)
class BlockProof:
    """What is proven of a plan without the whole model, and what is not."""

    instances: tuple[Instance, ...]
    unproven: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(instance.verification.ok for instance in self.instances)

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [f"{_words(i.blocks)}, {i.parameters:,} parameters: {i.verification}" for i in self.instances]
        return "\n".join([*lines, *(f"not proven: {what}" for what in self.unproven)])


def verify_shards(plan: Plan, model: nn.Module, example_inputs: Any = None) -> BlockProof:
    """Prove a plan on instances of a model that have few of its blocks, at full width, with random weights.

    Args:
        plan: of `score_shards`, or of `fxprune.plan`.
        model: the plan's model, on the meta device if it does not fit; it is not changed.
        example_inputs: other inputs than those whose specs the plan holds.

    Returns:
        What was proven: that every block form, every way in which the plan cuts it, and all that lies around the stacks
        computes what the masked original computes. And what was not: the depth, and the checkpoint's own numbers.

    Raises:
        VerificationError: an instance differs, does not run, or couples its channels otherwise than the whole.
        PlanError: the plan is of another model, or cuts coupled channels unlike.

    >>> import fxprune
    >>> with torch.device("meta"):
    ...     net = nn.Sequential(nn.Linear(3, 8), nn.Sequential(*(nn.Linear(8, 8) for _ in range(6))), nn.Linear(8, 2))
    >>> coupling = fxprune.analyze(net, torch.zeros(1, 3, device="meta"))
    >>> plan = fxprune.Plan.build(coupling.groups, {name: range(4) for name in coupling.prunable},
    ...                           signature=coupling.signature, inputs=coupling.inputs, digest="", aliases={})
    >>> proof = verify_shards(plan, net)
    >>> proof.ok, proof.instances[0].blocks
    (True, {'1': (0, 1)})
    """
    if not isinstance(plan, Plan):
        raise InputError(f"plan must be a fxprune.Plan, got {type(plan).__name__}; write verify_shards(plan, model)")
    plan.check(signature_of(model))
    inputs = plan.inputs if example_inputs is None else example_inputs
    # All blocks hold together under the plan; what they then compute, those of the instances show.
    whole = analysis_of(model, inputs, Policy(**plan.policy)).coupling
    plan.check(whole.signature, whole.groups, aliases(model))
    instances = tuple(_proven(plan, model, blocks, inputs) for blocks in _choices(model, plan))
    left = [f"{len(stack)} blocks of {path!r} one behind the other" for path, stack in _stacks(model)
            if all(len(i.blocks[path]) < len(stack) for i in instances)]
    return BlockProof(instances, (*left, "the numbers of the checkpoint: its weights are compared by digest, not run"))


def _proven(plan: Plan, model: nn.Module, blocks: Blocks, inputs: Any) -> Instance:
    instance, names = _instance(model, blocks)
    try:
        analysis = analysis_of(instance, inputs, Policy(**plan.policy))
    except CaptureError as error:
        raise VerificationError(f"an instance with {_words(blocks)} does not run: {error}; verify a small model of the "
                                "same class with fxprune.compress") from error
    cut = _cut(plan, analysis.coupling, instance, names)
    small = carry_out(Folded(instance), analysis, cut)
    return Instance(blocks, sum(p.numel() for p in instance.parameters()), check(instance, small, cut, analysis))


def _stacks(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList | nn.Sequential]]:
    """The outermost lists of modules in which more blocks of a form follow than an instance has."""
    inside: list[str] = []
    for path, module in named_modules(model):
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or any(path.startswith(p) for p in inside):
            continue
        children = dict(module.named_children())
        forms = [_form(child) for child in module]
        if list(children) == [str(k) for k in range(len(forms))] and any(forms.count(f) > ABREAST for f in forms):
            inside.append(f"{path}.")
            yield path, module


def _form(block: nn.Module) -> tuple[object, ...]:
    return tuple(type(module) for _, module in named_modules(block)), signature_of(block)


def _choices(model: nn.Module, plan: Plan) -> list[Blocks]:
    """The blocks of each instance: all forms are in each of them, and all ways of cutting a form in some."""
    turns: dict[str, list[tuple[int, ...]]] = {}
    for path, stack in _stacks(model):
        ways: dict[object, dict[object, list[int]]] = {}
        for number, block in enumerate(stack):
            ways.setdefault(_form(block), {}).setdefault(_way(plan, f"{path}.{number}."), []).append(number)
        turns[path] = _turns([list(found.values()) for found in ways.values()])
    rounds = max(map(len, turns.values()), default=1)
    return [{path: found[turn % len(found)] for path, found in turns.items()} for turn in range(rounds)]


def _turns(forms: list[list[list[int]]]) -> list[tuple[int, ...]]:
    """Numbers of blocks, an instance each; ``forms`` are the blocks by form and by the way that they are cut."""
    chosen = [_pairs(ways) for ways in forms]
    count = max(map(len, chosen))
    return [tuple(sorted({n for pairs in chosen for n in pairs[turn % len(pairs)]})) for turn in range(count)]


def _pairs(ways: list[list[int]]) -> list[list[int]]:
    if len(ways) == 1:
        return [ways[0][:ABREAST]]
    firsts = [numbers[0] for numbers in ways]
    # An odd one out comes with the first.
    return [[a, firsts[0] if b is None else b] for a, b in zip_longest(firsts[::ABREAST], firsts[1::ABREAST])]


def _way(plan: Plan, prefix: str) -> object:
    """How many of each dimension the plan keeps of a block's tensors; which ones makes no other form."""
    return tuple((name.removeprefix(prefix), tuple((dim, len(kept)) for dim, kept in keep.items()))
                 for name, keep in plan.keep.items() if name.startswith(prefix))


def _instance(model: nn.Module, blocks: Blocks) -> tuple[nn.Module, dict[str, str]]:
    """A copy with these blocks alone and random weights, and what its tensors are called in the model."""
    sources: dict[int, torch.Tensor] = {}

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        twin = _like(tensor, torch.empty_like(tensor, device="meta"))
        sources[id(twin)] = tensor
        return twin

    small = _copied(model, empty)
    called = {id(tensor): name for name, tensor in named_tensors(small)}
    for path, numbers in blocks.items():
        stack: Any = small.get_submodule(path)
        for number in reversed(range(len(stack))):
            if number not in numbers:
                del stack[number]
    names = {name: called[id(tensor)] for name, tensor in named_tensors(small)}
    generator = torch.Generator().manual_seed(SEED)
    return _copied(small, lambda twin: _filled(sources[id(twin)], generator)), names


def _copied(model: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy with other tensors in the place of the model's, those that are mere attributes among them."""
    memo: dict[int, Any] = {}
    for _, module in named_modules(model):
        for tensor in tensors_in(vars(module)):
            if id(tensor) not in memo:
                memo[id(tensor)] = make(tensor)
    return copy.deepcopy(model, memo)


def _filled(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random numbers that may be variances, too; of what holds no real numbers the values, as far as there are any."""
    if tensor.is_floating_point():
        return _like(tensor, torch.rand(tensor.shape, generator=generator).add(0.5).to(tensor.dtype))
    return torch.ones(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.detach().clone()


def _like(tensor: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _cut(plan: Plan, coupling: Coupling, instance: nn.Module, names: Mapping[str, str]) -> Plan:
    """The plan of an instance: what the model's plan keeps of each of its tensors."""
    kept = {name: found for name, group in coupling.groups.items()
            if len(found := _kept(plan, group, names)) < group.size}
    cut = Plan.build(coupling.groups, kept, signature=coupling.signature, inputs=coupling.inputs, digest="",
                     aliases=aliases(instance), mode=coupling.mode, policy=plan.policy)
    for new, old in names.items():
        if cut.keep.get(new) != plan.keep.get(old):
            raise VerificationError(f"{old!r} is not cut in an instance with few blocks as the plan cuts it in the "
                                    f"model: its channels are coupled to others there; draw the plan again")
    return cut


def _kept(plan: Plan, group: CouplingGroup, names: Mapping[str, str]) -> list[int]:
    member = group.members[0]
    rows = plan.keep.get(names[member.name], {}).get(member.dim)
    channels = np.asarray(member.channel)
    return np.unique(channels if rows is None else channels[np.isin(member.index, rows)]).tolist()


def _words(blocks: Blocks) -> str:
    return " and ".join(f"blocks {', '.join(map(str, numbers))} of {path!r}" for path, numbers in blocks.items()) \
        or "the whole model"
