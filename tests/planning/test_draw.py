"""Drawing a plan: what is scored, what may be cut, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fxprune.capture.model_walk import aliases, signature_of
from fxprune.errors import BudgetError, InputError, PlanError, UnsupportedError
from fxprune.ir.units import Reason
from fxprune.planning import Plan
from fxprune.planning.criteria import L2
from fxprune.planning.digest import digest_of
from fxprune.planning.draw import plan
from fxprune.planning.selection import select


def names(groups):
    return [group.name for group in groups]


@pytest.mark.parametrize("options", [
    {"macs": 0.4}, {"params": 0.3, "vote": "intersection"}, {"channels": 0.5, "criterion": "l1"},
    {"threshold": 0.9, "criterion": "bn_scale", "vote": "union"}, {"macs": 0.5, "criterion": "random", "round_to": 2},
    {"params": 0.5, "scope": "uniform", "vote": "majority", "min_channels": 2},
])
def test_a_plan_fits_its_budget_and_its_coupling(net, coupling, options):
    before, digest, state = signature_of(net), digest_of(net), torch.get_rng_state()
    drawn = plan(coupling, net, **options)
    drawn.check(signature_of(net), coupling.groups, aliases(net))
    drawn.check_weights(net)
    for kind in {"macs", "params"} & set(options):
        widths = [np.array([of(g) for g in coupling.groups.values()]) for of in (
            lambda g: drawn.widths.get(g.name, g.size), lambda g: g.size)]
        count = getattr(coupling.costs, kind)
        assert count(widths[0]) <= options[kind] * count(widths[1])
    assert drawn == plan(coupling, net, **options)
    assert before == signature_of(net) and digest == digest_of(net) and (state == torch.get_rng_state()).all()


def test_the_least_important_channels_go(net, coupling):
    with torch.no_grad():
        net.conv1.weight[2] = net.conv2.weight[2] = net.conv3.weight[1] = 0
    drawn = plan(coupling, net, channels=0.8)
    assert drawn.widths == {"conv1": 7, "conv3": 5, "conv4": 4}
    assert 2 not in drawn.groups["conv1"].kept and 1 not in drawn.groups["conv3"].kept
    expected = net.conv4.weight.detach().flatten(1).norm(dim=1).double().numpy()
    np.testing.assert_allclose(drawn.groups["conv4"].scores, expected, rtol=1e-6)


def test_the_costs_of_the_fixture_count_its_parameters(net, coupling):
    sizes = np.array([g.size for g in coupling.groups.values()])
    assert coupling.costs.params(sizes) == sum(p.numel() for p in net.parameters())


def test_half_of_the_macs_is_the_default(net, coupling):
    assert plan(coupling, net).options["budget"] == {"macs": 0.5}


def test_options_say_how_the_plan_was_drawn(net, coupling):
    drawn = plan(coupling, net, params=0.7, criterion=L2(), groups=["conv1", "conv3"], round_to=2)
    assert drawn.options == {"budget": {"params": 0.7}, "criterion": "L2()", "vote": "joint", "scope": "global",
                             "round_to": 2, "min_channels": 1, "whole": ("conv4",)}
    assert drawn.policy == {"heads": "dims", "grouped": "within"} and drawn.mode == "graph"


def test_widths_of_ones_own(net, coupling):
    drawn = Plan.from_widths(coupling, net, {"conv1": 3, "conv4": 4})
    assert drawn.widths == {"conv1": 3, "conv4": 4}
    assert drawn.groups["conv1"].kept == tuple(sorted(np.argsort(drawn.groups["conv1"].scores)[-3:]))
    for widths, error, message in (
            ({"conv1": 9}, InputError, "width of group 'conv1' must be an integer from 1 to 8, got 9"),
            ({"conv1": 0}, InputError, "got 0"), ({"conv1": True}, InputError, "got True"),
            ({"cnv1": 2}, InputError, "unknown group 'cnv1'; did you mean 'conv1'"),
            ({"fc": 2}, InputError, r"'fc' is frozen \(model output"), ({}, InputError, "widths must map")):
        with pytest.raises(error, match=message):
            Plan.from_widths(coupling, net, widths)
    with pytest.raises(BudgetError, match=r"widths= takes the place of a budget, got macs=0\.5"):
        plan(coupling, net, macs=0.5, widths={"conv1": 3})


def test_widths_edited_in_a_file(net, coupling, tmp_path):
    path = tmp_path / "plan.json"
    drawn = plan(coupling, net, macs=0.5, criterion="l1", vote="union")
    drawn.save(path)
    again = Plan.from_widths(coupling, net, path)
    assert again.groups == drawn.groups and again.keep == drawn.keep
    assert again.options["criterion"] == "l1" and again.options["vote"] == "union"
    width, other = drawn.widths["conv1"], 8 if drawn.widths["conv1"] < 8 else 7
    path.write_text(path.read_text().replace(f'"conv1": {width},', f'"conv1": {other},', 1))
    with pytest.raises(PlanError, match="must agree with .*, or give it this file"):
        Plan.load(path)
    edited = Plan.from_widths(coupling, net, str(path))
    assert edited.widths == {**drawn.widths, "conv1": other}
    assert edited.groups["conv1"].kept == tuple(sorted(np.argsort(drawn.groups["conv1"].scores)[-other:]))
    edited.save(path)
    assert Plan.load(path) == edited
    assert Plan.from_widths(coupling, net, path, criterion="l2", vote="joint").options["criterion"] == "l2"


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"conv1": ', '"conv1": -', r"widths\['conv1'\] must be an integer >= 1, got -"),
    ('"conv1": ', '"conv1": 9', "width of group 'conv1' must be an integer from 1 to 8, got 9"),
    ('"conv1": ', '"cnv1": ', "unknown group 'cnv1'; did you mean 'conv1'"),
    ('"criterion": "l2"', '"criterion": "Mine()"', r"unknown criterion 'Mine\(\)'"),
    ('"criterion": "l2"', '"criterion": 3', "criterion must be"),
    ('"vote": "joint"', '"vote": {}', "vote"),
    ("[8, 3, 3, 3]", "[8, 3, 5, 5]", "a plan only fits a model"),
])
def test_widths_edited_wrongly(net, coupling, tmp_path, old, new, message):
    path = tmp_path / "plan.json"
    plan(coupling, net, macs=0.5).save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((InputError, PlanError), match=message):
        Plan.from_widths(coupling, net, path)


@pytest.mark.parametrize(("wanted", "chosen"), [
    ("auto", ["conv1", "conv3", "conv4"]), (["conv4", "conv1"], ["conv1", "conv4"]), (["conv2"], ["conv1"]),
    ("conv*", ["conv1", "conv3", "conv4"]), (["bn?"], ["conv1"]), (["conv[34]"], ["conv3", "conv4"]),
    (["*"], ["conv1", "conv3", "conv4"]),
])
def test_groups_by_name_and_pattern(net, coupling, wanted, chosen):
    assert names(select(coupling.groups, net, wanted)) == chosen


def test_groups_by_object(net, coupling):
    one = coupling.groups["conv3"]
    assert names(select(coupling.groups, net, [one])) == names(select(coupling.groups, net, one)) == ["conv3"]
    assert names(select(coupling.groups, net, (replace(one),))) == ["conv3"]
    with pytest.raises(InputError, match="groups must come from this model's coupling, but CouplingGroup"):
        select(coupling.groups, net, [replace(one, size=5)])


@pytest.mark.parametrize(("ignore", "left"), [
    ("conv1", ["conv3", "conv4"]), (["conv3"], ["conv4"]), (["bn2"], ["conv3", "conv4"]), (["fc"], ["conv1"]),
    (["fc2"], ["conv1"]), (["fc?"], ["conv1"]), (["conv4.bias"], ["conv1", "conv3"]), ([], ["conv1", "conv3", "conv4"]),
])
def test_ignored_modules_keep_what_they_read_and_write(net, coupling, ignore, left):
    assert names(select(coupling.groups, net, "auto", ignore)) == left


def test_ignored_modules_by_object_and_by_container(net, coupling):
    assert names(select(coupling.groups, net, ignore=net.fc2)) == ["conv1"]
    net.wrap = nn.ModuleDict({"inner": net.conv4})
    assert names(select(coupling.groups, net, ignore=[net.wrap])) == ["conv3"]
    assert names(select(coupling.groups, net, ignore=["wrap"])) == ["conv3"]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"groups": ["layr"]}, "unknown group or layer 'layr'.* Known: 'bn1', 'bn2', 'conv1'"),
    ({"groups": ["conv33"]}, "did you mean 'conv2', 'conv3', 'conv4'"),
    ({"groups": ["fc"]}, r"groups must be prunable, but 'fc' is frozen \(model output \(output\)\); leave it out"),
    ({"groups": [3]}, "groups must be names, patterns or CouplingGroup objects, got int"),
    ({"groups": 3}, "groups must be a name or a list of names, got int"),
    ({"groups": []}, r"at least one group must be left to cut, but groups=\[\]"),
    ({"ignore": ["cov1"]}, "unknown module 'cov1'; did you mean 'conv1'"),
    ({"ignore": ["layer*"]}, r"unknown module 'layer\*'"),
    ({"ignore": [nn.Linear(2, 2)]}, "modules of this model, but the Linear given is not part of it"),
    ({"ignore": [5]}, "ignore must hold module names, patterns or modules, got int"),
    ({"ignore": ["*"]}, r"must be left to cut, but groups='auto' and ignore=\['\*'\] leave none"),
    ({"ignore": [""]}, "leave none of 4"),
    ({"criterion": "l7"}, "unknown criterion 'l7'"),
    ({"vote": "veto"}, "unknown vote 'veto'"),
])
def test_bad_arguments_are_named(net, coupling, arguments, message):
    with pytest.raises(InputError, match=message):
        plan(coupling, net, macs=0.5, **arguments)


def test_modules_without_parameters_cannot_be_ignored(net, coupling):
    net.act = nn.ReLU()
    with pytest.raises(InputError, match="ignore must name modules that hold parameters, but 'act' holds none"):
        plan(coupling, net, ignore=["act"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(net, coupling, value):
    net.fc.bias.data[2] = value
    with pytest.raises(InputError, match=r"weights must be finite to be scored, but 'fc.bias' holds 1 infinite or NaN"):
        plan(coupling, net)


def test_large_weights_whose_sum_overflows_are_fine(net, coupling):
    net.fc.weight.data.fill_(3e38)
    assert plan(coupling, net).keep


def test_other_models_are_refused(coupling, tools):
    with pytest.raises(InputError, match=r"must come from this model, but 'conv1.weight' is \[8, 3, 3, 3\] float32 in t"
                                         r"he coupling and \[4, 3, 3, 3\] float32 in the model"):
        plan(coupling, tools.Net(4))
    with pytest.raises(InputError, match=r"model must be a torch.nn.Module, got str"):
        plan(coupling, "resnet50")


def test_nothing_to_prune(net, coupling):
    held = {name: replace(group, frozen=Reason("model output")) for name, group in coupling.groups.items()}
    with pytest.raises(UnsupportedError, match=r"all 4 coupling groups are frozen \(model output\)"):
        plan(replace(coupling, groups=held), net)
