"""``outputs=`` says which outputs keep their size; the others may shrink, and the record says which did."""

from dataclasses import dataclass

import pytest
import torch
from reference import fingerprint
from torch import nn

import fxprune
from fxprune import InputError, Plan, Policy, VerificationError


@dataclass
class Out:
    logits: torch.Tensor
    hidden: torch.Tensor
    cache: tuple


class Net(nn.Module):
    """A head, the hidden state that it reads, and a cache of keys and values."""

    def __init__(self):
        super().__init__()
        self.body, self.k, self.v, self.head = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(8, 12), nn.Linear(22, 3)

    def forward(self, x):
        hidden = self.body(x).relu()
        k, v = self.k(hidden), self.v(hidden)
        return Out(self.head(torch.cat([k, v], -1)), hidden, ((k, v),))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


X = torch.randn(4, 6)


def test_all_are_held_where_nothing_is_said(model):
    coupling = fxprune.analyze(model, X)
    assert not coupling.prunable
    assert {g.frozen.why for g in coupling.groups.values()} == {"model output"}


@pytest.mark.parametrize(("outputs", "prunable"), [
    (("logits",), {"body", "k", "v"}), (("logits", "cache"), {"body"}), (["logits", "cache.0.1"], {"body", "k"}),
    (("hidden",), {"k", "v", "head"}), ((), {"body", "k", "v", "head"})])
def test_those_that_are_named_are_held(model, outputs, prunable):
    assert set(fxprune.analyze(model, X, outputs=outputs).prunable) == prunable


@pytest.mark.parametrize("form", ["graph", "module"])
def test_the_record_says_which_dimensions_shrank(model, form):
    before = fingerprint(model)
    small = fxprune.compress(model, X, channels=0.5, outputs=["logits"], form=form)
    assert fingerprint(model) == before
    done = fxprune.record(small)
    assert done.outputs == {"hidden": ((1, 8, 4),), "cache.0.0": ((1, 10, 5),), "cache.0.1": ((1, 12, 6),)}
    assert done.verification.ok and "outputs that shrank: hidden[1] 8 to 4, cache.0.0[1] 10 to 5" in done.report()
    out = small(X)
    assert out.logits.shape == (4, 3) and out.hidden.shape == (4, 4) and out.cache[0][1].shape == (4, 6)
    kept = list(done.plan.keep["body.weight"][0])
    assert torch.allclose(out.hidden, model(X).hidden[:, kept])


def test_nothing_shrank_where_all_are_held():
    small = fxprune.compress(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), X, channels=0.5)
    assert fxprune.record(small).outputs == {} and "outputs that shrank" not in fxprune.record(small).report()


def test_a_plan_remembers_it(model, tmp_path):
    coupling = fxprune.analyze(model, X, outputs=["logits"])
    fxprune.plan(coupling, model, channels=0.5).save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert Policy(**plan.policy) == coupling.policy == Policy(outputs=("logits",))
    small = fxprune.apply(model, plan)
    assert fxprune.verify(model, small, plan).ok and fxprune.record(small).outputs["hidden"] == ((1, 8, 4),)


def test_an_output_that_shrank_is_compared(model):
    small = fxprune.compress(model, X, channels=0.5, outputs=["logits"])
    hidden = next(node for node in small.graph.nodes if node.name == "relu")
    with small.graph.inserting_after(hidden):
        wrong = small.graph.call_method("flip", (hidden, -1))
    hidden.replace_all_uses_with(wrong, lambda user: user not in (wrong,) and user.target not in ("k", "v"))
    small.recompile()
    with pytest.raises(VerificationError, match="output"):
        fxprune.verify(model, small, fxprune.record(small).plan)


@pytest.mark.parametrize(("outputs", "said"), [
    (["logit"], r"outputs= must name outputs of the model, got 'logit'; it returns 'logits', 'hidden', 'cache.0.0'"),
    ("logits", r"outputs must be a list of names, got 'logits'; write outputs=\['logits'\]")])
def test_what_is_no_output_is_refused(model, outputs, said):
    with pytest.raises(InputError, match=said):
        fxprune.analyze(model, X, outputs=outputs)


def test_a_single_tensor_is_called_output():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    assert set(fxprune.analyze(net, X, outputs=["output"]).prunable) == {"0"}
    assert set(fxprune.analyze(net, X, outputs=[]).prunable) == {"0", "2"}
