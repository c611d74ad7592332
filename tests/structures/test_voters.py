"""A channel that all of its voters give up is removed at no loss, in every structure. Gates do not vote, and stay."""

from dataclasses import asdict

import attention_cases  # noqa: F401
import cnn_cases  # noqa: F401
import movement_cases  # noqa: F401
import numpy as np
import odd_cases  # noqa: F401
import pytest
import python_cases  # noqa: F401
import reference
import sequence_cases  # noqa: F401
import torch
from cases import CASES, Net
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

import fxprune
from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.ir.groups import CARRIER
from fxprune.planning import Plan
from fxprune.planning.digest import digest_of
from fxprune.training.terms import voter_terms

# Where a zero is not the same as nothing: statistics over channels count zeros, too; a constant is added on the way.
STATISTICS = """pre_norm_transformer_block transformer_encoder_and_decoder_layers swiglu_with_rms_norm group_norm
layer_scale_and_channel_first_layer_norm spatial_attention_from_channel_statistics weight_standardisation
global_response_normalisation one_operator_in_three_spellings statistics_of_kept_tokens_features
space_to_depth_by_hand embedding_tied_with_the_output""".split()
CONSTANTS = """multihead_attention_with_learned_and_zero_positions chunk_into_unequal_parts
split_by_an_integer_with_a_remainder class_token_and_position_embedding constants_from_numpy in_place_operators
in_place_add_to_a_view hooks_on_modules""".split()


def zero(model, coupling, shifts):
    """The last third of each group goes: its voters' blocks become zero, with all that is applied to the channels
    after them where ``shifts``. What stays, by group."""
    tensors, kept = dict(named_tensors(model)), {}
    for name, group in coupling.prunable.items():
        gone = np.arange(group.size) >= max(1, group.size * 2 // 3)
        kept[name] = np.flatnonzero(~gone)
        blocks = [part for term in voter_terms(group, tensors, None) for part in term.parts]
        carriers = [m for m in group.members if m.role == CARRIER and tensors[m.name].is_floating_point()
                    and not m.name.endswith(("running_var", "_u", "_v"))]
        for part in blocks + carriers * shifts:
            with torch.no_grad():
                tensors[part.name].index_fill_(part.dim, torch.from_numpy(part.index[gone[part.channel]]), 0)
    return kept


def planned(model, coupling, kept):
    return Plan.build(coupling.groups, kept, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases=aliases(model), policy=asdict(coupling.policy),
                      mode=coupling.mode)


def error(small, model, example):
    """The largest deviation, relative to the largest output."""
    with torch.no_grad():
        pairs = zip(*(reference.leaves(m.eval()(*example)) for m in (small, model)), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in pairs if a.is_floating_point())


@pytest.mark.parametrize("name", [n for n in CASES if isinstance(CASES[n].inputs(2), tuple)])
def test_what_all_voters_give_up_goes_at_no_loss(name):
    case = CASES[name]
    model = case.build()
    reference.randomise(model, 100)
    model = model.double()
    torch.manual_seed(1)
    example = tree_map(lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x,
                       case.inputs(2))
    coupling = fxprune.analyze(model, example, policy=case.policy)
    plan = planned(model, coupling, zero(model, coupling, shifts=True))
    found = error(fxprune.apply(model, plan, example, verify=False), model, example)
    assert (found > 1e-6) == (name in STATISTICS + CONSTANTS), found



def norm(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b))


def attend(m, x):
    q, k, v = (m.qkv(x).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)).unbind()
    return m.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def excite(m, x):
    y = m.a(x)
    return m.head(y * torch.sigmoid(m.fc(y.mean((2, 3))))[..., None, None])


IMAGE, TOKENS = (2, 3, 5, 5), (2, 4, 12)
# Net, example's shape, gates: exact folds need layers without padding.
NETS = {
    "squeeze and excitation": (lambda: Net(excite, a=norm(3, 9), fc=nn.Linear(9, 9), head=nn.Conv2d(9, 2, 3)), IMAGE,
                               {"fc.weight"}),
    "modulation": (lambda: Net(lambda m, x: m.head(m.a(x) * (1 + m.s(x)) + m.t(x)), a=norm(3, 9), s=norm(3, 9),
                               t=norm(3, 9), head=nn.Conv2d(9, 2, 3)), IMAGE, {"s.0.weight"}),
    "highway": (lambda: Net(lambda m, x: m.head((g := torch.sigmoid(m.g(x))) * m.a(x) + (1 - g) * m.b(x)),
                            a=norm(3, 9), b=norm(3, 9), g=norm(3, 9), head=nn.Conv2d(9, 2, 3)), IMAGE, {"g.0.weight"}),
    "a gate that is also read": (lambda: Net(lambda m, x: m.head(m.a(x) * (g := torch.sigmoid(m.g(x)))) + m.tail(g),
                                             a=norm(3, 9), g=norm(3, 9), head=nn.Conv2d(9, 2, 3),
                                             tail=nn.Conv2d(9, 2, 3)), IMAGE, set()),
    "silu product": (lambda: Net(lambda m, x: m.head(F.silu(m.a(x)) * m.b(x)), a=nn.Linear(12, 9), b=nn.Linear(12, 9),
                                 head=nn.Linear(9, 2)), TOKENS, set()),
    "glu": (lambda: Net(lambda m, x: m.head(F.glu(m.a(x), -1)), a=nn.Linear(12, 18), head=nn.Linear(9, 2)), TOKENS,
            set()),
    "attention, one projection": (lambda: Net(attend, qkv=nn.Linear(12, 36), head=nn.Linear(12, 2)), TOKENS, set()),
    "nothing but a sigmoid": (lambda: Net(lambda m, x: m.head(torch.sigmoid(m.a(x))), a=norm(3, 9),
                                          head=nn.Conv2d(9, 2, 3)), IMAGE, set()),
}


@pytest.mark.parametrize("name", NETS)
def test_what_is_still_emitted_is_folded(name):
    build, shape, gates = NETS[name]
    torch.manual_seed(0)
    model = build()
    reference.randomise(model, 3)
    model, example = model.double(), torch.randn(shape, dtype=torch.float64)
    coupling = fxprune.analyze(model, example)
    assert set().union(*(group.gates for group in coupling.groups.values())) == gates
    plan = planned(model, coupling, zero(model, coupling, shifts=False))
    small = fxprune.apply(model, plan, example, fold_constants=True, calibration=example)
    assert error(small, model, (example,)) < 1e-9


@pytest.mark.parametrize(("heads", "voters"), [("dims", {"q.weight", "k.weight", "v.weight"}), ("whole", {"v.weight"})])
def test_who_votes_on_heads(heads, voters):
    case = CASES["attention_of_separate_projections" + "_whole_heads" * (heads == "whole")]
    coupling = fxprune.analyze(case.build(), case.inputs(2), policy=case.policy)
    assert case.policy.heads == heads
    names = {m.name for group in coupling.prunable.values() for m in group.voters}
    assert names & {"q.weight", "k.weight", "v.weight"} == voters
