"""Random signatures and calls: two sizes, keywords in any order, plain arguments; equal, or refused by name."""

import inspect
from dataclasses import dataclass

import pytest
import reference
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import nn

import fxprune

# What an argument may be, besides a tensor.
PLAIN = (None, False, True, 0, 2, 0.5, "half", (1, 2))


@dataclass(frozen=True)
class Drawn:
    """An argument: a tensor or a plain value, given or left to its default, which is None or that value."""

    name: str
    tensor: bool
    value: object
    default: bool
    given: bool

    @property
    def written(self) -> str:
        return self.name if not self.default else f"{self.name}={'None' if self.tensor else repr(self.value)}"

    def make(self, batch):
        return torch.randn(batch, 4) if self.tensor else self.value


@st.composite
def signatures(draw):
    """The first is a tensor without a default; those with defaults come last."""
    names = draw(st.permutations("abcd"))[:draw(st.integers(1, 4))]
    first = draw(st.integers(1, len(names)))
    drawn = [Drawn(name, draw(st.booleans()), draw(st.sampled_from(PLAIN)), place >= first, draw(st.booleans()))
             for place, name in enumerate(names)]
    return [Drawn(a.name, a.tensor or not k, a.value, a.default, a.given or not a.default) for k, a in enumerate(drawn)]


class Called(nn.Module):
    """Each argument has a weight of its own, so that none can stand for another."""

    def __init__(self, names):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(4, 8) for name in names})
        self.out = nn.Linear(8, 3)

    def run(self, **values):
        y = 0
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                y = y + self.layers[name](value).relu()
            else:
                y = y * (1 + PLAIN.index(value))
        return self.out(y)


def net(drawn):
    scope = {}
    passed = ", ".join(f"{a.name}={a.name}" for a in drawn)
    exec(f"def forward(self, {', '.join(a.written for a in drawn)}):\n    return self.run({passed})", scope)
    torch.manual_seed(0)
    return type("Drawn", (Called,), {"forward": scope["forward"]})([a.name for a in drawn]).eval()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(signatures(), st.randoms(use_true_random=False), st.booleans())
def test_any_order_any_size_and_no_other_constant(drawn, random, positional):
    model, held = net(drawn), [a for a in drawn if a.given]
    example = {a.name: a.make(2) for a in random.sample(held, len(held))}
    if positional and held == drawn[:len(held)]:
        example = tuple(example[a.name] for a in held)
    note((inspect.signature(model.forward), example))
    small = fxprune.compress(model, example, channels=0.5)
    assert str(inspect.signature(small.forward)) == str(inspect.signature(model.forward))
    assert {mode for mode, _ in fxprune.record(small).verification.runs} == {"eval", "train"}
    assert all(row.free for row in fxprune.record(small).dimensions if row.dim == 0)
    masked = reference.duplicate(model)
    reference.zeroed(masked, fxprune.record(small).plan.keep, {})
    for batch in (2, 5):
        values = {a.name: a.make(batch) for a in held}
        by_keyword = {name: values[name] for name in random.sample(list(values), len(values))}
        reference.assert_close(small(**by_keyword), masked(**values), f"batch {batch}")
    for argument in drawn:
        other = next(v for v in PLAIN if argument.tensor or type(v) is not type(argument.value) or v != argument.value)
        if argument.tensor and not argument.default:
            continue  # whatever is no tensor does not run
        if argument.tensor and not argument.given:
            other = torch.ones(5, 4)
        with pytest.raises(fxprune.InputError, match=f"fxprune: captured with(out)?.* {argument.name}"):
            small(**{**values, argument.name: other})
