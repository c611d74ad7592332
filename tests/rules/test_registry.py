"""The table of rules: one record per operator, found however a call is spelled."""

import operator

import pytest
import torch
import torch.nn.functional as F

import fxprune
from fxprune.errors import InputError
from fxprune.rules.registry import RULES, couple_of, literals_of, register_literals, register_rule, rule_for
from fxprune.rules.targets import qualified


@pytest.fixture(autouse=True)
def same_table_afterwards():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def pad(x, amounts):
    """A user's function that shares its name with one of torch's."""
    return x


@pytest.mark.parametrize(("target", "name"), [
    ("view", "aten::view"),
    (torch.reshape, "aten::reshape"),
    (torch.functional.split, "aten::split"),
    (F.pad, "aten::pad"),
    (F.scaled_dot_product_attention, "aten::scaled_dot_product_attention"),
    (torch.linalg.norm, "aten::linalg_norm"),
    (torch.ops.aten.view, "aten::view"),
    (torch.ops.aten.slice.Tensor, "aten::slice"),
    (operator.setitem, "operator::setitem"),
    (pad, f"{__name__}::pad"),
])
def test_a_call_is_known_by_the_operator_that_it_names(target, name):
    assert qualified(target) == name


def test_one_record_serves_all_spellings():
    record = rule_for("aten::reshape")
    assert record.couple is couple_of("aten::view") is couple_of("aten::_unsafe_view")
    for target in ("reshape", torch.reshape, torch.ops.aten.reshape, torch.ops.aten.reshape.default):
        assert literals_of(target) is record.literals is not None
    assert literals_of("squeeze_") is rule_for("aten::squeeze").literals


def test_a_function_of_the_user_is_not_taken_for_torchs():
    assert literals_of(F.pad) is not None and literals_of(pad) is None


def test_literals_of_a_function_go_by_the_function():
    written = register_literals(pad)(lambda site, target, args, kwargs: (target, args, kwargs))
    assert literals_of(pad) is written and couple_of(f"{__name__}::pad") is None


def test_literals_and_rule_of_one_operator_are_one_record_in_either_order():
    def literals(site, target, args, kwargs):
        return target, args, kwargs

    register_literals("registry_test::first")(literals)
    couple = register_rule("registry_test::first", mixes=True)(lambda op, x: x.vectors)
    register_rule("registry_test::then")(couple)
    register_literals("registry_test::then")(literals)
    for name in ("first", "then"):
        record = RULES[f"registry_test::{name}"]
        assert (record.couple, record.literals) == (couple, literals)
    assert RULES["registry_test::first"].mixes


def test_what_is_registered_twice_is_refused():
    with pytest.raises(InputError, match=r"'aten::view' already has the literals 'output_sizes'; remove it first"):
        register_literals("aten::view")(print)
    with pytest.raises(InputError, match=r"'aten::view' already has the rule 'viewed'; remove it first"):
        register_rule("aten::view")(print)


def test_a_bare_name_is_refused():
    with pytest.raises(InputError, match="got 'view'; write 'aten::view' for what torch calls so, or pass the fun"):
        register_literals("view")(print)


def test_an_operator_with_literals_alone_still_has_no_rule():
    register_literals("registry_test::alone")(lambda site, target, args, kwargs: (target, args, kwargs))
    assert couple_of("registry_test::alone") is None


def test_both_are_public():
    assert fxprune.register_rule is register_rule and fxprune.register_literals is register_literals
