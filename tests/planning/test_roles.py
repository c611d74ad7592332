"""``uniform=True``: groups of one role get one width, under every budget; what stays is each group's own best."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.cli.compress_command import arguments
from fxprune.cli.main import parser
from fxprune.errors import BudgetError, InputError
from fxprune.ir.units import Reason
from fxprune.planning.budget import Budget, best
from fxprune.planning.roles import Roles
from fxprune.planning.stairs import Prices


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.fc2(F.gelu(self.fc1(x)))


class Blocks(nn.Module):
    """Three blocks in a row, a fourth of another size, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.layers = nn.ModuleList([*(Block(12, 4, 10) for _ in range(3)), Block(12, 4, 7)])
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x)


@dataclass(frozen=True)
class Area:
    groups: tuple[int, ...]

    def __call__(self, widths):
        return np.prod([widths[..., group] for group in self.groups], axis=0).astype(float)


@dataclass(frozen=True)
class Made:
    """A price list: every group pays for its square and for its product with the next."""

    step: int = 1
    digest: str = "sha256:0"
    seconds: float = 0.0
    about: tuple = ()

    def priced(self, coupling, model, check=True):
        count = len(coupling.groups)
        return Prices([Area((g, (g + 1) % count)) for g in range(count)])


torch.manual_seed(0)
NET = Blocks()
COUPLING = fxprune.analyze(NET, torch.randn(2, 6, 5), policy=fxprune.Policy(heads="whole"))
PRICES = Made().priced(COUPLING, NET)
TABLE = Made(seconds=PRICES(COUPLING.widths))


def drawn(**options):
    return fxprune.plan(COUPLING, NET, uniform=True, **options)


def role_widths(plan):
    """Role -> the widths of its groups."""
    roles = Roles.of(COUPLING.groups, True)
    return {role: [plan.widths.get(name, COUPLING.groups[name].size) for name in names]
            for role, names in roles.groups.items()}


def full_widths(plan):
    return np.array([plan.widths.get(name, group.size) for name, group in COUPLING.groups.items()])


def test_roles_are_paths_but_for_the_numbers_of_blocks_at_one_size():
    roles = Roles.of(COUPLING.groups, True)
    assert roles.groups == {
        "stem": ("stem",), "layers.0.attention.q": tuple(f"layers.{i}.attention.q" for i in range(4)),
        "layers.0.fc1": ("layers.0.fc1", "layers.1.fc1", "layers.2.fc1"), "layers.3.fc1": ("layers.3.fc1",),
        "fc": ("fc",)}
    assert roles.sizes == {"stem": 12, "layers.0.attention.q": 4, "layers.0.fc1": 10, "layers.3.fc1": 7, "fc": 3}
    assert Roles.of(COUPLING.groups, False).groups == {name: (name,) for name in COUPLING.groups}


def test_a_number_in_a_name_counts_where_the_module_is_a_block():
    class Two(nn.Module):  # cv1 and cv2 are two layers of one block, stage1 and stage2 two blocks
        def __init__(self):
            super().__init__()
            for stage in ("stage1", "stage2"):
                part = nn.Module()
                part.cv1, part.cv2 = (nn.Sequential() for _ in range(2))
                part.cv1.conv, part.cv2.conv = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
                setattr(self, stage, part)
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            for part in (self.stage1, self.stage2):
                x = part.cv2.conv(part.cv1.conv(x).relu()).relu()
            return self.head(x)

    coupling = fxprune.analyze(Two(), torch.randn(1, 6, 4, 4))
    assert Roles.of(coupling.groups, True).groups == {
        "stage1.cv1.conv": ("stage1.cv1.conv", "stage2.cv1.conv"),
        "stage1.cv2.conv": ("stage1.cv2.conv", "stage2.cv2.conv"), "head": ("head",)}


budgets = st.one_of(
    st.tuples(st.sampled_from(["macs", "params", "channels", "latency"]), st.integers(20, 100).map(lambda p: p / 100)),
    st.tuples(st.just("threshold"), st.floats(0.0, 1.5)))
options = st.fixed_dictionaries({
    "vote": st.sampled_from(["joint", "intersection", "union", "majority"]), "round_to": st.sampled_from([1, 2, 3]),
    "scope": st.sampled_from(["global", "absolute", "isomorphic", "uniform"]), "min_channels": st.integers(1, 3),
    "criterion": st.sampled_from(["l2", "random"])})


@settings(deadline=None, max_examples=150)
@given(budgets, options)
@pytest.mark.filterwarnings("ignore:threshold=")
def test_all_groups_of_a_role_have_one_width_and_budgets_are_met(budget, options):
    kind, value = budget
    try:
        plan = drawn(**{kind: value}, **options, **({"table": TABLE} if kind == "latency" else {}))
    except BudgetError:
        return
    for role, widths in role_widths(plan).items():
        assert len(set(widths)) == 1, role
    widths = full_widths(plan)
    if kind in ("macs", "params"):
        count = getattr(COUPLING.costs, kind)
        assert count(widths) <= value * count(COUPLING.widths)
    if kind == "latency":
        assert PRICES(widths) <= value * TABLE.seconds * (1 + 1e-9)
    for group in plan.groups.values():
        assert group.kept == tuple(best(np.array(group.scores), group.width))
    plan.check(COUPLING.signature, COUPLING.groups)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["macs", "params"]), st.integers(20, 99), st.sampled_from(["global", "absolute", "isomorphic"]),
       st.sampled_from([None, "macs", "params"]))
def test_one_more_channel_in_some_role_would_exceed(kind, percent, scope, per):
    try:
        plan = drawn(**{kind: percent / 100}, scope=scope, per=per)
    except BudgetError:
        return
    count, roles = getattr(COUPLING.costs, kind), Roles.of(COUPLING.groups, True)
    widths, names = full_widths(plan), list(COUPLING.groups)
    wider = [widths + np.isin(names, members) for role, members in roles.groups.items()
             if role in plan.widths and plan.widths[role] < roles.sizes[role]]
    assert any(count(w) > percent / 100 * count(COUPLING.widths) for w in wider)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(25, 100), min_size=2, max_size=2, unique=True), st.sampled_from(["macs", "channels"]))
def test_plans_nest(percents, kind):
    small, large = (drawn(**{kind: p / 100}) for p in sorted(percents))
    assert all(set(group.kept) <= set(large.groups[name].kept) for name, group in small.groups.items())


def test_without_repeated_blocks_nothing_changes(net, coupling):
    for cut in ({"macs": 0.5}, {"params": 0.4, "scope": "absolute", "per": "macs"}, {"threshold": 0.9},
                {"channels": 0.5}):
        assert fxprune.plan(coupling, net, uniform=True, **cut).keep == fxprune.plan(coupling, net, **cut).keep


def test_a_role_scores_the_mean_of_its_groups_in_units_of_each_groups_mean():
    roles = Roles({"a": ("a", "b"), "c": ("c",)}, {"a": 3, "c": 2}, np.array([0, 0, 1]))
    scores = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([40.0, 60.0, 20.0]), "c": np.array([2.0, 1.0])}
    together = roles.scores(scores, Budget.of(macs=0.5))
    assert together["a"] == pytest.approx([0.5, 1.0, 1.5]) and together["c"] is scores["c"]
    assert roles.scores(scores, Budget.of(macs=0.5, scope="absolute"))["a"] == pytest.approx([10.5, 21.0, 31.5])
    assert roles.scores(scores, Budget.of(threshold=2.0))["a"].tolist() == [20.0, 40.0, 60.0]
    assert roles.scores({"a": scores["a"]}, Budget.of(macs=0.5)) == {}
    zeros = {"a": np.zeros(3), "b": scores["b"], "c": scores["c"]}
    assert roles.scores(zeros, Budget.of(macs=0.5))["a"] == pytest.approx([0.25, 0.5, 0.75])


def test_two_groups_of_a_role_are_priced_as_one_channel_each():
    # Both roles score alike, and a channel costs the same everywhere: priced, the pair goes no sooner than the single.
    names = [name for name in COUPLING.groups if name.endswith("fc1")]
    plan = drawn(groups=names, criterion=lambda group, tensors: np.ones((1, group.size)), params=0.8, per="params",
                 scope="absolute")
    shares = [plan.widths[name] / COUPLING.groups[name].size for name in ("layers.0.fc1", "layers.3.fc1")]
    assert shares[0] < 1 and abs(shares[0] - shares[1]) < 0.15


@pytest.mark.filterwarnings("ignore:threshold=")
def test_a_threshold_removes_nothing_that_reaches_it():
    for threshold in (0.4, 0.7, 1.0):
        plan = drawn(threshold=threshold, groups=["layers.*.fc1"])
        for name, group in plan.groups.items():
            scores = np.array(group.scores)
            assert (scores[np.setdiff1d(np.arange(group.size), group.kept)] < threshold).all(), name
    assert plan.widths["layers.0.fc1"] < 10


def test_one_width_stands_for_its_role():
    plan = drawn(widths={"layers.1.fc1": 6, "stem": 9})
    assert plan.widths == {"layers.0.fc1": 6, "layers.1.fc1": 6, "layers.2.fc1": 6, "stem": 9}
    with pytest.raises(InputError, match=r"gives 'layers.0.fc1' and 'layers.2.fc1' one width, and widths= names 6 and"):
        drawn(widths={"layers.0.fc1": 6, "layers.2.fc1": 5})


def test_a_role_of_which_one_group_stays_is_held_and_named():
    with pytest.warns(UserWarning, match=r"keeps 'layers.0.fc1' and its like whole, because 'layers.2.fc1' is not to"):
        plan = drawn(channels=0.5, ignore="layers.2.fc1")
    assert "layers.0.fc1" not in plan.widths and plan.widths["layers.3.fc1"] == 4
    assert {"layers.0.fc1", "layers.1.fc1", "layers.2.fc1"} <= set(plan.options["whole"])
    group = COUPLING.groups["layers.1.fc1"]
    frozen = {**COUPLING.groups, group.name: fxprune.CouplingGroup(group.name, 10, group.members, (), Reason("held"))}
    roles = Roles.of(frozen, True)
    with pytest.warns(UserWarning, match="'layers.1.fc1' is frozen: held"):
        left = roles.free([g for g in frozen.values() if not g.frozen], frozen)
    assert [g.name for g in left] == ["stem", *(f"layers.{i}.attention.q" for i in range(4)), "layers.3.fc1"]
    with pytest.warns(UserWarning, match="keeps"), pytest.raises(InputError, match="with uniform=True none is"):
        drawn(groups=["layers.0.fc1"])
    with pytest.raises(InputError, match="uniform must be True or False, got 'yes'"):
        fxprune.plan(COUPLING, NET, uniform="yes")


def test_compress_and_the_command_line_take_it():
    small = fxprune.compress(NET, torch.randn(2, 6, 5), policy=fxprune.Policy(heads="whole"), macs=0.5, uniform=True)
    plan = fxprune.record(small).plan
    assert plan.options["uniform"] is True and fxprune.Plan.from_dict(plan.to_dict()) == plan
    assert fxprune.record(small).verification.ok
    widths = {getattr(small.layers, str(i)).fc1.out_features for i in range(3)}
    assert len(widths) == 1 and widths < set(range(1, 10))
    options = parser().parse_args(["compress", "resnet18", "--uniform"])
    assert arguments(options)["uniform"] is True
    assert arguments(parser().parse_args(["compress", "resnet18"]))["uniform"] is False
