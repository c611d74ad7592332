"""The plan: what it says is what computes, it survives a file, and whatever is wrong with it is named."""

import copy
import dataclasses
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from fxprune.capture.model_walk import aliases, named_tensors, signature_of
from fxprune.errors import FxpruneError, InputError, PlanError
from fxprune.ir import files
from fxprune.ir.example_inputs import Inputs, TensorSpec
from fxprune.ir.policy import POLICIES, Policy
from fxprune.ir.signature import Signature
from fxprune.planning import Plan
from fxprune.planning.draw import plan as draw


@pytest.fixture
def plan(net, coupling):
    return draw(coupling, net, params=0.5)


def build(net, coupling, kept):
    return Plan.build(coupling.groups, kept, signature=coupling.signature, inputs=coupling.inputs, digest="sha256:0",
                      aliases=aliases(net))


def shrink(net, plan, tools):
    """Slice by hand: the plan alone decides."""
    widths = {**{"conv1": 8, "conv3": 6, "conv4": 4}, **plan.widths}
    small = tools.Net(*(widths[name] for name in ("conv1", "conv3", "conv4"))).eval()
    state = net.state_dict()
    for name, dims in plan.keep.items():
        for dim, indices in dims.items():
            state[name] = state[name].index_select(dim, torch.tensor(indices))
    small.load_state_dict(state)
    return small


def masked(net, coupling, kept):
    """The original with the planned slices of every parameter at zero."""
    net = copy.deepcopy(net)
    tensors = dict(named_tensors(net))
    for name, channels in kept.items():
        for member in coupling.groups[name].members:
            if not member.name.endswith("running_var"):
                gone = member.index[~np.isin(member.channel, channels)]
                tensors[member.name].data.index_fill_(member.dim, torch.tensor(gone), 0)
    return net


@pytest.mark.parametrize("kept", [
    {"conv1": [0, 2, 3, 7]}, {"conv3": [5]}, {"conv3": [1, 4], "conv4": [0, 2, 3]},
    {"conv1": [6, 1, 3], "conv3": [2, 0], "conv4": [3, 1]},
    {"conv1": [7, 6, 5, 4, 3, 2, 1, 0], "conv3": [3, 1, 2, 0, 5, 4]},
])
def test_kept_and_reordered_channels_compute_the_masked_original(net, coupling, tools, kept):
    plan = build(net, coupling, kept)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = masked(net, coupling, kept)(x)
        torch.testing.assert_close(shrink(net, plan, tools)(x), expected, rtol=1e-5, atol=1e-5)
        assert expected.abs().max() > 1e-2
    plan.check(coupling.signature, coupling.groups, aliases(net))


def test_keep_lists_exactly_what_changes(net, coupling):
    plan = build(net, coupling, {"conv1": range(8), "conv3": [0, 2], "conv4": [0, 1, 2, 3]})
    flat = (0, 1, 2, 3, 8, 9, 10, 11, *range(24, 40))
    assert plan.keep == {"conv3.weight": {0: (0, 2)}, "conv3.bias": {0: (0, 2)}, "fc.weight": {1: flat},
                         "fc2.weight": {1: flat}}
    assert plan.widths == {"conv1": 8, "conv3": 2, "conv4": 4}


def test_a_plan_is_frozen_copies_and_pickles(plan):
    for change in (lambda: setattr(plan, "mode", "module"), lambda: plan.keep.update({}),
                   lambda: plan.keep["conv1.weight"].__setitem__(0, ())):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert copy.deepcopy(plan) == plan == pickle.loads(pickle.dumps(plan))


def test_round_trip(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(str(tmp_path / "plan.json"))
    assert loaded == plan == Plan.from_dict(plan.to_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


def test_inputs_of_every_kind_round_trip(plan):
    spec = TensorSpec((2, 3), "int64", 0, 7)
    inputs = Inputs(([spec, (1, None)], {"a": {2: spec}, "b": "text"}), {"x": float("inf"), "flag": True})
    assert Plan.from_dict(replace(plan, inputs=inputs).to_dict()).inputs == inputs
    for value, message in ((object(), "is a object"), ({(1, 2): 3}, "plain dictionary keys")):
        with pytest.raises(PlanError, match=message):
            replace(plan, inputs=Inputs((value,))).to_dict()


def test_the_file_reads_well(net, coupling, tmp_path):
    build(net, coupling, {"conv1": [0, 1, 2, 3, 6], "conv3": [4, 1]}).save(tmp_path / "plan.json")
    lines = (tmp_path / "plan.json").read_text().splitlines()
    assert lines[lines.index('  "widths": {') + 1:][:3] == ['    "conv1": 5,', '    "conv3": 2', "  },"]
    assert '      "0": "0-3,6"' in lines and '      "kept": "4,1",' in lines
    assert '    "conv1.weight": ["float32", [8, 3, 3, 3]],' in lines


def test_saving_replaces_whole_files_only(plan, tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(PlanError, match=r"cannot be written .*No space left"):
            plan.save(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(PlanError, match=r"cannot be written to .*No such file"):
        plan.save(tmp_path / "nowhere" / "plan.json")


def edit(*keys, to):
    """A change deep in the document."""
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        if to is KeyError:
            del document[keys[-1]]
        else:
            document[keys[-1]] = to
    return change


def nested(levels):
    inner = {}
    for _ in range(levels):
        inner = {"x": inner}
    return inner


@pytest.mark.parametrize(("change", "message"), [
    (edit("format", to="onnx"), r"format must be 'fxprune-plan', got \"onnx\""),
    (edit("version", to=3), "version must be 1 or 2, the format versions .* got 3"),
    (edit("version", to=True), "version must be 1 or 2, the format versions .* got true"),
    (edit("version", to=2), "branches must be an object, got nothing"),
    (edit("branches", to={}), "unknown key 'branches'"),
    (edit("version", to="1"), "version must be 1"),
    (edit("version", to=KeyError), "version must be 1 or 2, .* got nothing"),
    (edit("widhts", to={}), "unknown key 'widhts'; did you mean 'inputs', 'widths'"),
    (edit("mode", to="eager"), "mode must be one of 'graph', 'module'"),
    (edit("digest", to=5), "digest must be a string, got 5"),
    (edit("keep", to=[]), r"keep must be an object, got \[\]"),
    (edit("keep", to=KeyError), "keep must be an object, got nothing"),
    (edit("keep", "conv1.weight", "0", to="0-8"), r"keep\['conv1.weight'\]\['0'\]: index 8 is out of range"),
    (edit("keep", "conv1.weight", "0", to="0-99999999999"), "neither an index nor a range"),
    (edit("keep", "conv1.weight", "0", to="-1"), "'-1' is neither an index nor a range"),
    (edit("keep", "conv1.weight", "0", to="1,1"), "index 1 is repeated"),
    (edit("keep", "conv1.weight", "0", to="0-7,0-7"), "an index is repeated"),
    (edit("keep", "conv1.weight", "0", to="3-1"), "the range '3-1' runs backwards"),
    (edit("keep", "conv1.weight", "0", to="1, 2"), "' 2' is neither an index"),
    (edit("keep", "conv1.weight", "0", to="\u0661"), "neither an index"),
    (edit("keep", "conv1.weight", "0", to=""), "must keep at least one index"),
    (edit("keep", "conv1.weight", "0", to=[0, 1]), "must be a string"),
    (edit("keep", "conv1.weight", "4", to="0"), r"'4' is not a dimension of \[8, 3, 3, 3\]"),
    (edit("keep", "conv1.weight", "x", to="0"), "'x' is not a dimension"),
    (edit("keep", "conv9.weight", to={"0": "0"}), r"keep\['conv9.weight'\]: the signature has no parameter"),
    (edit("groups", "conv1", "size", to=0), r"groups\['conv1'\].size must be an integer >= 1, got 0"),
    (edit("groups", "conv1", "size", to=True), "size must be an integer"),
    (edit("groups", "conv1", "kept", to="0-99"), r"groups\['conv1'\].kept: index 99 is out of range"),
    (edit("groups", "conv1", "scores", to=[1.0]), r"scores must have one score per channel \(8\), got 1"),
    (edit("groups", "conv1", "scores", to=["a"] * 8), "scores must be a list of finite numbers"),
    (edit("groups", "conv1", "scores", to=[10 ** 400] * 8), "must be a list of finite|is not a number that"),
    (edit("groups", "conv1", "size", to=2 ** 31), r"groups\['conv1'\].size must be at most 40, got 2147483648"),
    (edit("groups", "conv1", "size", to=2 ** 63), r"size must be at most 40, got 9223372036854775808"),
    (edit("signature", "conv1.weight", to=["float32", [2 ** 63]]), "must be at most 9223372036854775807"),
    (edit("keep", "conv1.weight", "0", to="0-9999999999"), "indices together must be at most 67,108,864"),
    (edit("options", "criterion", to=[]), r"options.criterion must be a string, got \[\]"),
    (edit("options", "x", to=nested(900)), "nested too deeply"),
    (edit("inputs", "args", to=[{"tensor": "float32", "shape": [2 ** 20, 2 ** 20]}]), "at most 1,073,741,824 elements"),
    (edit("inputs", "args", to=[{"tensor": "float32", "shape": [0, 2 ** 31]}]), "must be at most 1073741824, got"),
    (edit("inputs", "args", to=[{"tensor": "float32", "shape": [1] * 65}]), "must have at most 64 dimensions"),
    (edit("inputs", "args", to=[{"tensor": "int64", "shape": [1], "high": 2 ** 63}]), "high must be at most"),
    (edit("groups", "conv1", "extra", to=1), "unknown key 'extra'"),
    (edit("widths", "conv1", to=2), r"widths\['conv1'\] must agree .* got 2 .*Plan.from_widths\(coupling, model, \{'"),
    (edit("widths", "conv3", to=KeyError), r"widths\['conv3'\] must agree .* got no width"),
    (edit("widths", "other", to=2), r"widths\['other'\] must agree .* the group does not exist"),
    (edit("signature", "conv1.weight", to="float32"), r"signature\['conv1.weight'\] must be a list"),
    (edit("signature", "conv1.weight", to=["float32", [8, -3]]), r"\[1\]\[1\] must be an integer >= 0, got -3"),
    (edit("signature", "conv1.weight", to=["float32"]), r"must be \[dtype, shape\]"),
    (edit("inputs", "args", to=[{"tuple": 3}]), r"inputs.args\[0\].tuple must be a list"),
    (edit("inputs", "args", to=[{"dict": [[[], 3]]}]), "must be a pair"),
    (edit("inputs", "args", to=[{"pickle": "x"}]), "must be an example input as fxprune writes it"),
    (edit("inputs", "args", to=[{"tensor": "float32", "shape": [1.5]}]), r"shape\[0\] must be an integer"),
    (edit("inputs", "args", to=[{"tensor": "load", "shape": []}]), r"\[0\].tensor must be the name of a dtype"),
    (edit("options", to=3), "options must be an object"),
    (edit("policy", "heads", to=3), "heads'] must be a string"),
    (edit("policy", "heads", to="both"), "policy.heads must be one of 'dims', 'whole', got \"both\""),
    (edit("policy", "haeds", to="dims"), "policy: unknown key 'haeds'; did you mean 'heads'"),
    (edit("versions", to=KeyError), "versions must be an object"),
])
def test_damaged_documents_say_what_and_where(net, coupling, tmp_path, change, message):
    document = build(net, coupling, {"conv1": [0, 2, 3], "conv3": [1, 2], "conv4": [0]}).to_dict()
    document["groups"]["conv1"]["scores"] = [1.0] * 8
    document["policy"]["heads"] = "dims"
    Plan.from_dict(json.loads(json.dumps(document)))
    change(document)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    for read in (lambda: Plan.load(tmp_path / "plan.json"), lambda: Plan.from_dict(document)):
        with pytest.raises(PlanError, match=message):
            read()


def test_policies_are_those_of_the_coupling():
    assert {field.name for field in dataclasses.fields(Policy)} == {*POLICIES, "outputs"}
    assert all(getattr(Policy(), name) in words for name, words in POLICIES.items())


@pytest.mark.parametrize(("text", "message"), [
    (lambda t: t[:len(t) // 2], "not valid JSON .*cut short"),
    (lambda t: "", "not valid JSON"),
    (lambda t: "[]", "the document must be an object"),
    (lambda t: t.replace('"mode"', '"mode": "graph",\n  "mode"', 1), "the key 'mode' is duplicated"),
    (lambda t: t.replace('"scores": [', '"scores": [NaN, ', 1), "NaN is not a number that may stand here"),
    (lambda t: t.replace('"scores": [', '"scores": [-Infinity, ', 1), "-Infinity is not a number"),
    (lambda t: t.replace('"scores": [', '"scores": [1e999, ', 1), "1e999 is not a number"),
    (lambda t: "[" * 100000, "not valid JSON|nested too deeply"),
    (lambda t: '{"format": ' + "9" * 5000 + "}", "not valid JSON"),
])
def test_damaged_texts_are_refused(plan, tmp_path, text, message):
    plan.save(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(text((tmp_path / "plan.json").read_text()))
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / "plan.json")


def test_files_that_are_no_plans(plan, tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no.json", "is no file"),
                          (tmp_path / "weights.pt", "must be UTF-8 text, got byte 0xff at 4")):
        with pytest.raises(PlanError, match=message):
            Plan.load(path)
    plan.save(tmp_path / "plan.json")
    monkeypatch.setattr(files.read_text, "__defaults__", (100,))
    with pytest.raises(PlanError, match="must not be larger than 100 bytes"):
        Plan.load(tmp_path / "plan.json")


def test_every_truncation_and_flipped_byte_is_refused_or_harmless(plan, tmp_path):
    path = tmp_path / "plan.json"
    plan.save(path)
    raw, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(raw)
        broken[generator.integers(len(raw))] = generator.integers(256)
        path.write_bytes(broken[:generator.integers(len(raw))] if generator.random() < 0.3 else broken)
        try:
            Plan.load(path)
        except FxpruneError as error:
            assert str(error)


def change_keep(plan, name, dim, indices):
    keep = {n: dict(dims) for n, dims in plan.keep.items()}
    keep.setdefault(name, {})[dim] = indices
    return replace(plan, keep={n: {d: i for d, i in dims.items() if i is not None} for n, dims in keep.items()})


@pytest.mark.parametrize(("name", "dim", "indices", "message"), [
    ("conv2.weight", 1, (0, 2, 4), r"keep\['conv2.weight'\]\[1\] breaks a coupling: it removes index 3, but it is kept "
                                   r"by channel 3 of group 'conv1', which conv1.weight\[0\], .* shares"),
    ("bn1.weight", 0, None, "it keeps index 1, but it is removed by channel 1 of group 'conv1'"),
    ("bn1.weight", 0, (0, 3, 2), "it moves index 2 elsewhere than channel 2 of group 'conv1'"),
    ("fc2.weight", 1, (0, 1, 2), r"keep\['fc2.weight'\]\[1\] breaks a coupling"),
    ("fc.bias", 0, (0, 1), r"removes index 2, but it is kept by channel 2 of group 'fc' \(frozen: model output"),
    ("conv1.weight", 1, (0, 1), r"\['conv1.weight'\]\[1\] breaks a coupling: index 2 belongs to no group"),
    ("fc.bias", 0, (0, 1, 2, 3, 4), r"keep\['fc.bias'\]\[0\] must be left out"),
    ("conv1.weight", 0, (0, 2, 8), r"keep\['conv1.weight'\]\[0\]: indices must lie in 0 to 7, got 8, .*out of range"),
    ("conv1.weight", 0, (0, 2, -1), "got -1, which is out of range"),
    ("conv1.weight", 0, (0, 2, 2), "no index may be repeated, got 2 2 times"),
    ("conv1.weight", 0, (), "must list at least one index"),
    ("conv1.weight", 0, (0.0, 1.0), "must list at least one index, as integers"),
    ("conv1.weight", 7, (0,), r"\[7\]: 'conv1.weight' has dimensions 0 to 3"),
    ("conv1.wieght", 0, (0,), "unknown parameter or buffer 'conv1.wieght'; did you mean 'conv1.weight'"),
])
def test_plans_that_break_the_coupling(net, coupling, name, dim, indices, message):
    plan = build(net, coupling, {"conv1": [0, 2, 3], "conv3": [1, 2]})
    with pytest.raises(PlanError, match=message):
        change_keep(plan, name, dim, indices).check(coupling.signature, coupling.groups, aliases(net))


def test_group_records_that_do_not_fit(net, coupling):
    plan = build(net, coupling, {"conv1": [0, 2, 3]})

    def with_group(name, **changes):
        return replace(plan, groups={**plan.groups, name: replace(plan.groups["conv1"], **changes)})

    for broken, message in (
            (with_group("fc", size=5, kept=(0, 1)), r"plan.groups\['fc'\].kept: all 5 channels must stay, .*model out"),
            (with_group("fc", size=5, kept=(1, 0, 2, 3, 4)), r"plan.groups\['fc'\].kept: all 5 channels must stay"),
            (with_group("conv1", kept=(0, 2)), "breaks a coupling: it keeps index 3, but it is removed by channel 3"),
            (with_group("conv1", kept=(0, 0)), "no index may be repeated"),
            (with_group("conv1", size=9), "must have 8 channels, as in the model's coupling, got 9"),
            (with_group("conv7"), "unknown coupling group 'conv7'; did you mean 'conv1'")):
        with pytest.raises(PlanError, match=message):
            broken.check(coupling.signature, coupling.groups, aliases(net))


def test_a_frozen_group_is_neither_cut_nor_reordered(net, coupling):
    assert build(net, coupling, {"fc": range(5)}).keep == {}
    for kept in ([0, 1, 2, 3], [1, 0, 2, 3, 4]):
        with pytest.raises(PlanError, match=r"all 5 channels must stay, because the group is frozen: model output"):
            build(net, coupling, {"fc": kept})


def test_another_model_is_refused(plan, coupling, tools):
    with pytest.raises(PlanError, match=r"'conv1.weight' is \[8, 3, 3, 3\] float32 in the plan and \[5, 3, 3, 3\] float"
                                        r"32 in the model \(already pruned"):
        plan.check(signature_of(tools.Net(5)))
    with pytest.raises(PlanError, match=r"'extra' is absent in the plan and \[2\] int64 in the model"):
        plan.check(Signature((*coupling.signature.entries, ("extra", (2,), "int64"))))


def test_other_weights_are_refused(plan, net):
    plan.check_weights(net)
    net.bn1.running_mean[3] += 1e-6
    with pytest.raises(PlanError, match=r'drawn from other weights: it expects sha256:.* pass weights="any"'):
        plan.check_weights(net)


def test_the_digest_sees_every_byte(net):
    from fxprune.planning.digest import digest_of

    digests = [digest_of(net)]
    net.conv1.weight.data[0, 0, 0, 0] *= -1
    digests.append(digest_of(net))
    digests.append(digest_of(net.to(torch.bfloat16)))
    digests.append(digest_of(net.to(memory_format=torch.channels_last)))
    assert len(set(digests)) == 3 and digests[2] == digests[3]
    with pytest.raises(InputError, match=r"'conv1.weight' is on the meta device; materialise it"):
        digest_of(net.to("meta"))


def test_channels_of_unlike_members_are_removed_but_not_reordered(net, coupling):
    group = coupling.groups["conv3"]
    uneven = replace(group.members[-1], channel=group.members[-1].channel[:-1], index=group.members[-1].index[:-1])
    coupling.groups["conv3"] = replace(group, members=(*group.members[:-1], uneven))
    build(net, coupling, {"conv3": [0, 1]})
    with pytest.raises(PlanError, match="may be removed but not reordered, because they hold unlike numbers"):
        build(net, coupling, {"conv3": [1, 0]})
