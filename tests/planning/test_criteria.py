"""Each criterion against a direct computation, and what holds for a user's own."""

import numpy as np
import pytest
import torch

from fxprune.errors import InputError
from fxprune.ir.groups import CARRIER, CONSUMER, PRODUCER, CouplingGroup, Member
from fxprune.planning.criteria import L1, L2, BNScale, Random, described, group_scores, resolve
from fxprune.planning.criteria.slices import powers


def member(name, dim, role, channel, index=None):
    return Member(name, dim, role, np.array(channel), np.arange(len(channel)) if index is None else np.array(index))


@pytest.fixture
def group():
    return CouplingGroup("conv", 3, (
        member("conv.weight", 0, PRODUCER, [0, 1, 2]),
        # A grouped layer that holds each channel twice, and shares its rows with another group.
        member("wide.weight", 0, PRODUCER, [0, 1, 2, 0, 1, 2], [0, 1, 2, 5, 6, 7]),
        member("bn.weight", 0, CARRIER, [0, 1, 2]), member("bn.bias", 0, CARRIER, [0, 1, 2]),
        member("act.weight", 0, CARRIER, [0, 1, 2]),
        member("next.weight", 1, CONSUMER, [0, 1, 2])))


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (3, 4, 3, 3), "wide.weight": (8, 2), "bn.weight": (3,), "bn.bias": (3,),
              "act.weight": (3,), "next.weight": (5, 3)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(("criterion", "order"), [(L1(), 1), (L2(), 2)])
def test_norms_of_each_voter(group, tensors, criterion, order):
    conv = tensors["conv.weight"].double().abs().pow(order).sum((1, 2, 3))
    rows = tensors["wide.weight"].double().abs().pow(order).sum(1)
    wide = rows[[0, 1, 2]] + rows[[5, 6, 7]]
    expected = torch.stack([conv, wide]).pow(1 / order).numpy()
    np.testing.assert_allclose(criterion(group, tensors), expected, rtol=1e-6)


def test_norms_along_another_dimension(tensors):
    group = CouplingGroup("up", 4, (member("conv.weight", 1, PRODUCER, [3, 2, 1, 0]),))
    expected = tensors["conv.weight"].pow(2).sum((0, 2, 3)).sqrt().numpy()[::-1]
    np.testing.assert_allclose(L2()(group, tensors)[0], expected, rtol=1e-6)


def test_bn_scale_reads_the_normalisation_only(group, tensors):
    assert BNScale()(group, tensors).tolist() == [tensors["bn.weight"].abs().double().tolist()]


def test_bn_scale_falls_back_to_l2(group, tensors):
    bare = CouplingGroup("conv", 3, tuple(m for m in group.members if not m.name.startswith("bn")))
    del tensors["bn.bias"], tensors["bn.weight"]
    assert (BNScale()(bare, tensors) == L2()(bare, tensors)).all()


def test_random_depends_on_seed_and_name_only(group, tensors):
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = Random(3)(group, tensors)
    assert (first == Random(3)(group, tensors)).all() and first.shape == (2, 3)
    assert (first != Random(4)(group, tensors)).any()
    assert (first != Random(3)(CouplingGroup("other", 3, group.members), tensors)).any()
    assert (torch.get_rng_state() == state[0]).all() and (np.random.get_state()[1] == state[1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_other_dtypes(dtype):
    tensor = torch.tensor([[3.0, 4.0], [300.0, 400.0]]).to(dtype)
    np.testing.assert_allclose(powers(tensor, 0, 2), [25, 250000], rtol=1e-2)


def test_large_weights_do_not_overflow():
    assert powers(torch.full((2, 2), 1e30), 0, 2).tolist() == pytest.approx([2e60, 2e60])


def test_meta_weights_are_refused(group, tensors):
    with pytest.raises(InputError, match="must hold values to be scored, but they are on the meta device"):
        L2()(group, {name: tensor.to("meta") for name, tensor in tensors.items()})


def test_names_and_objects_resolve():
    assert [type(resolve(name)) for name in ("l1", "l2", "bn_scale", "random")] == [L1, L2, BNScale, Random]
    assert resolve(Random(7)) == Random(7)
    assert [described(c) for c in ("l1", Random(7), test_meta_weights_are_refused)] == [
        "l1", "Random(seed=7)", "test_meta_weights_are_refused"]


@pytest.mark.parametrize(("criterion", "message"), [
    ("l3", "unknown criterion 'l3'; did you mean 'l1', 'l2'"),
    (L2, r"must be an instance, got the class L2; write L2\(\)"),
    (0.5, "must be a name or an object that is called with .* got float"),
])
def test_what_is_no_criterion(criterion, message):
    with pytest.raises(InputError, match=message):
        resolve(criterion)


@pytest.mark.parametrize("made", [torch.arange(3), [0, 1, 2], np.arange(3, dtype=np.float32), torch.arange(3.0)[None],
                                  torch.arange(3.0, requires_grad=True)])
def test_own_scores_of_any_array_kind(group, tensors, made):
    scores = group_scores(lambda group, tensors: made, group, tensors)
    assert scores.dtype == np.float64 and scores.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("made", "message"), [
    (np.ones(4), r"one score per channel, \[3\] or \[voters, 3\], got \[4\]"),
    (np.ones((3, 2)), r"got \[3, 2\]"),
    (np.ones((0, 3)), r"got \[0, 3\]"),
    (1.0, r"got \[\]"),
    (np.array([1.0, np.nan, 2.0]), "finite scores, got nan for channel 1"),
    (np.array([1.0, 2.0, -0.5]), r"scores >= 0 .*got -0\.5 for channel 2; return np\.abs"),
    ("high", "must return numbers, but raised ValueError"),
    (None, "must return|finite"),
])
def test_own_scores_that_make_no_sense(group, tensors, made, message):
    with pytest.raises(InputError, match=message):
        group_scores(lambda group, tensors: made, group, tensors)


def test_an_own_criterion_that_raises_is_named(group, tensors):
    with pytest.raises(InputError, match="on group 'conv' must return numbers, but raised KeyError"):
        group_scores(lambda group, tensors: tensors["nowhere"], group, tensors)
