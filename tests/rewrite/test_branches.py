"""Branches that go: against deleting them by hand, and against results that are wrong."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fxprune
from fxprune import FxpruneError, InputError, PlanError, VerificationError
from tests.residual_nets import Encoder, InPlace, Nested, Pair, PreActivation, Residual, Scaled, net, without

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Nothing(nn.Module):
    """In the place of a layer at the end of a branch."""

    def forward(self, *args, **kwargs):
        return torch.zeros_like(args[0])


class NoAttention(nn.Module):
    def forward(self, *args, **kwargs):
        return torch.zeros_like(args[0]), None


# The last layer of a branch, by its name -> what puts out zeros.
ENDS = {Pair: ("bn2", Nothing), InPlace: ("bn2", Nothing), PreActivation: ("conv2", Nothing), Nested: ("out", Nothing)}


def by_hand(kind, names):
    """A network whose branches put out zeros."""
    model = net(kind)
    for name in names:
        if name.endswith(".attn"):
            model.set_submodule(name, NoAttention())
        elif name.endswith(".mlp"):
            model.set_submodule(name, Nothing())
        elif kind is Scaled:
            model.get_submodule(name).scale.data.zero_()
        else:
            leaf, nothing = ENDS[kind]
            model.set_submodule(f"{name}.{leaf}", nothing())
    return model


CASES = [(Pair, [1]), (Pair, [0, 2]), (Pair, [0, 1, 2]), (InPlace, [0]), (InPlace, [1, 2]), (InPlace, [0, 1, 2]),
         (PreActivation, [0]), (PreActivation, [0, 1, 2]), (Scaled, [1]), (Nested, [1, 3]), (Encoder, [0, 3]),
         (Encoder, [1, 2, 5])]


@pytest.mark.parametrize(("kind", "places"), CASES, ids=lambda case: getattr(case, "__name__", str(case)))
def test_it_is_the_network_with_the_branch_deleted_by_hand(kind, places):
    model = net(kind)
    found = fxprune.analyze(model, X).branches
    names = [[*found][place] for place in places]
    small, wanted = fxprune.apply(model, without(model, X, names)), by_hand(kind, names)
    assert torch.allclose(small(X), wanted(X), rtol=0, atol=1e-6)
    gone = {tensor for name in names for tensor in found[name].tensors}
    assert set(small.state_dict()) == set(model.state_dict()) - gone
    record = fxprune.record(small)
    assert record.verification.ok and {mode for mode, _ in record.verification.runs} == {"eval", "train"}
    assert record.after.params == sum(p.numel() for p in small.parameters())
    if kind is not Scaled:  # which drops branches at random
        _alike_in_training(small.train(), wanted.train())


def _alike_in_training(small, wanted):
    small(X).square().sum().backward()
    wanted(X).square().sum().backward()
    theirs = dict(wanted.named_parameters())
    for name, parameter in small.named_parameters():
        assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5), name


def test_together_with_channels():
    model = net(Pair)
    coupling = fxprune.analyze(model, X)
    whole = without(model, X, ["blocks.1"])
    kept = {"stem": (0, 2, 3, 5), "blocks.0.conv1": (1, 4), "blocks.1.conv1": (0,)}
    plan = fxprune.Plan.build(coupling.groups, kept, signature=whole.signature, inputs=whole.inputs,
                              digest=whole.digest, aliases={}, branches=whole.branches)
    small, channels = fxprune.apply(model, plan), fxprune.Plan.build(
        coupling.groups, kept, signature=whole.signature, inputs=whole.inputs, digest=whole.digest, aliases={})
    wanted = fxprune.apply(by_hand(Pair, ["blocks.1"]), without(by_hand(Pair, ["blocks.1"]), X, []))
    masked = fxprune.apply(model, channels)
    masked.get_submodule("blocks.1.bn2").weight.data.zero_()
    masked.get_submodule("blocks.1.bn2").bias.data.zero_()
    assert torch.allclose(small(X), masked(X), atol=1e-6) and not torch.allclose(small(X), wanted(X), atol=1e-2)
    assert small.get_submodule("blocks.0.conv1").weight.shape == (2, 4, 3, 3)


def test_a_sum_that_is_written_into_keeps_what_it_was_given():
    """The rectifier works in place: without the branch it would write into the block's input, which is read again."""
    class Net(Residual):
        block = InPlace

        def forward(self, x):
            first = self.stem(x)
            return self.head((self.blocks[0](first) - 2 * first).mean((2, 3)))

    model = Net(blocks=1).eval()
    small = fxprune.apply(model, without(model, X, ["blocks.0"]))
    first = model.stem(X)
    assert torch.allclose(small(X), model.head((first.relu() - 2 * first).mean((2, 3))), atol=1e-6)


def test_another_branch_than_the_plan_names():
    model = net(Pair)
    wrong, plan = fxprune.apply(model, without(model, X, ["blocks.0"])), without(model, X, ["blocks.1"])
    with pytest.raises(VerificationError, match=r"'blocks.1.conv1.weight' must be gone with its branch"):
        fxprune.verify(model, wrong, plan)


@pytest.mark.parametrize("kind", [Pair, PreActivation, Encoder])
def test_a_branch_that_does_not_go(kind):
    """The proof sees it by its values, whatever the tensors are called."""
    model = net(kind)
    names = [*fxprune.analyze(model, X).branches]
    small = fxprune.apply(model, without(model, X, names[:1]))
    for plan in (without(model, X, []), without(model, X, names[:2])):
        with pytest.raises(VerificationError):
            fxprune.verify(model, small, plan)


def test_an_operand_that_is_the_wrong_one():
    """The shortcut dropped in the place of the branch."""
    model, plan = net(Pair), without(net(Pair), X, ["blocks.1"])
    small = fxprune.apply(model, without(model, X, []))
    add = next(node for node in small.graph.nodes if node.name == "add_1")
    branch = add.args[1]
    add.replace_all_uses_with(branch)
    small.graph.erase_node(add)
    small.recompile()
    with pytest.raises(VerificationError):
        fxprune.verify(model, small, plan)


def test_module_form_refuses_by_name():
    model = net(Pair)
    with pytest.raises(PlanError, match=r"'blocks.1' is to go, .* pass form=\"graph\""):
        fxprune.apply(model, without(model, X, ["blocks.1"]), form="module")


def test_folding_refuses():
    model = net(Pair)
    with pytest.raises(InputError, match="the plan takes branches out"):
        fxprune.apply(model, without(model, X, ["blocks.1"]), fold_constants=True)


def test_plans_of_branches_are_checked(tmp_path):
    model, other = net(Pair), net(Pair, width=8)
    plan = without(model, X, ["blocks.1"])
    plan.save(tmp_path / "plan.json")
    assert fxprune.Plan.load(tmp_path / "plan.json") == plan and '"version": 2' in (tmp_path / "plan.json").read_text()
    assert without(model, X, []).to_dict()["version"] == 1
    with pytest.raises(PlanError):
        fxprune.apply(other, plan)
    document = plan.to_dict()
    tensors = document["branches"]["blocks.1"]
    for change, message in [
            ({"blocks.1": [*tensors, tensors[0]]}, r"branches.blocks.1 must name .* each once"),
            ({"blocks.1": []}, "must name at least one"), ({"blocks.1": ["nowhere.weight"]}, "unknown parameter"),
            ({"blocks.1": "stem.weight"}, "must be a list"), ([], "must be an object"),
            ({"blocks.1": [3]}, "must be a string")]:
        with pytest.raises(PlanError, match=message):
            fxprune.Plan.from_dict({**document, "branches": change})
    for change, message in [({"blocks.7": tensors}, "unknown branch 'blocks.7'"),
                            ({"blocks.1": tensors[1:]}, "leaves out"),
                            ({"blocks.1": [*tensors, "stem.weight"]}, "names 'stem.weight'")]:
        with pytest.raises(PlanError, match=message):
            fxprune.apply(model, fxprune.Plan.from_dict({**document, "branches": change}))


def test_a_folder_loads(tmp_path):
    model = net(Pair)
    small = fxprune.compress(model, X, depth=0.6, macs=0.6)
    fxprune.save(small, tmp_path / "small")
    again = fxprune.load(tmp_path / "small", model=net(Pair))
    assert torch.equal(again(X), small(X)) and fxprune.record(again).plan == fxprune.record(small).plan
    assert torch.equal(pickle.loads(pickle.dumps(small))(X), small(X))
    assert torch.equal(copy.deepcopy(small)(X), small(X))


def test_one_plan_does_what_two_do():
    model = net(Nested)
    plan = without(model, X, ["blocks.0.inner"])
    first = fxprune.apply(model, plan)
    second = fxprune.compress(first, X, macs=0.5, depth=0.6)
    overall, later = fxprune.record(second).overall, fxprune.record(second).plan
    # What is left of the outer branch has another name in the first result.
    assert "blocks.0.out" in later.branches and "blocks.0" in overall.plan.branches
    one, two, both = ({name for tensors in p.branches.values() for name in tensors}
                      for p in (plan, later, overall.plan))
    assert both == one | two
    assert torch.allclose(fxprune.apply(model, overall.plan)(X), second(X), atol=1e-6)


def test_optimizers_forget_what_is_gone():
    model = net(Pair)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(X).sum().backward()
    optimizer.step()
    plan = without(model, X, ["blocks.1"])
    small = fxprune.apply(model, plan)
    fresh = plan.apply_to_optimizer(optimizer, model, small)
    assert {id(p) for group in fresh.param_groups for p in group["params"]} == {id(p) for p in small.parameters()}


@pytest.mark.parametrize("method", ["statistics", "least_squares", "obs"])
def test_recovery_goes_on_without_it(method):
    model, batches = net(Pair), [torch.randn(16, 3, 8, 8) for _ in range(3)]
    small = fxprune.compress(model, X, macs=0.6, depth=0.6, recover=method, data=batches)
    record = fxprune.record(small)
    assert record.plan.branches and record.recovery.layers and record.verification.ok
    gone = {tensor for tensors in record.plan.branches.values() for tensor in tensors}
    assert not gone & {layer.layer for layer in record.recovery.layers} and not gone & set(record.recovery.skipped)


def test_reports_name_it(tmp_path):
    model = net(Pair)
    small = fxprune.compress(model, X, depth=0.6)
    record = fxprune.record(small)
    name, = record.plan.branches
    said = f"1 residual branches removed: {name}"
    assert said in record.report("text") and said in record.report("md").replace("\\", "")
    record.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "branches removed" in page and name in page
    assert name in record._repr_html_() and name in record.plan._repr_html_()
    assert "residual branches that may go whole (depth=): blocks.0, blocks.1, blocks.2" in record.coupling.report("md")
    assert f"{name}.conv1" not in record.after.widths and "without 1 branches" in repr(record.plan)


def test_hostile_names_stay_on_their_line():
    class Net(Residual):
        block = Pair

    model = Net(blocks=2).eval()
    model.blocks.register_module("a\x1b[31mb", Pair(6))
    plan = without(model, X, [*fxprune.analyze(model, X).branches][-1:])
    small = fxprune.apply(model, plan)
    assert "\x1b" not in fxprune.record(small).report("text")
    with pytest.raises(FxpruneError):
        fxprune.apply(small, plan)
