"""FSDP2 and HSDP on gloo: twenty steps on several processes are those of one, to 1e-6; resumed on another number."""

import contextlib
import dataclasses
import functools
from unittest import mock

import processes
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from penalty_nets import residual
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from fxprune import DWGL, Ramp, analyze
from fxprune.errors import InputError, PlanError
from fxprune.planning.draw import plan
from fxprune.planning.whole_weights import whole
from fxprune.training.decay import SPP, AutoBalanced, GReg1, IncReg, SparseLearning
from fxprune.training.ranks import check_ranks
from fxprune.training.structured_sparsity import depth_wise, shape_wise
from fxprune.training.unstructured import SoftSharing

OPTIMIZERS = {"sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
              "adamw": lambda p: torch.optim.AdamW(p, 1e-3)}
RAMP = {"direction": (0.0, 8.0), "schedule": Ramp(until=0.6, every=3)}
# Options, whether the proximal step has to communicate.
PENALTIES = {"filters": (lambda c: DWGL(c, 0.05, **RAMP), False),
             "with scales": (lambda c: DWGL(c, 0.05, include_scale=True, **RAMP), False),
             "consumers": (lambda c: DWGL(c, 0.01, consumers=True), True),
             "joint": (lambda c: DWGL(c, 0.05, joint=True, direction=(0.0, 8.0)), True),
             "towards": (lambda c: DWGL.towards(c, macs=0.5, steps=15), False)}


def sharded(mesh=None, policy=None, dtype=torch.float64):
    model = residual().to(dtype).eval()
    options = {"mesh": mesh, **({"mp_policy": policy} if policy else {})}
    for block in (model.one, model.two):
        fully_shard(block, **options)
    return fully_shard(model, **options)


def train(model, penalty, optimizer, form, share, first=0, last=20):
    """``share`` of a batch's rows: those that this rank has."""
    for step in range(first, last):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step)).double()[share]
        loss = model(x.to(next(model.parameters()).dtype)).square().mean()
        if form == "loss":
            loss = loss + penalty(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if form == "proximal":
            penalty.proximal_(model, optimizer.param_groups[0]["lr"])
        penalty.step(model)


def full(model):
    return {name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
            for name, p in model.named_parameters()}


def distance(a, b):
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


def checked(checks, folder, rank, world):
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for check in checks:
        check(share, str(folder))


def run(world, checks, folder):
    processes.run(world, functools.partial(checked, checks, folder), folder)


def same_as_one_process(share, folder, only=tuple(PENALTIES)):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for name in only:
        make = PENALTIES[name][0]
        for kind, optimizer in OPTIMIZERS.items():
            form = "loss" if kind == "adamw" and name != "towards" else "proximal"
            alone, many = residual().double().eval(), sharded()
            one, several = make(coupling), make(coupling)
            train(alone, one, optimizer(alone.parameters()), form, slice(None))
            train(many, several, optimizer(many.parameters()), form, share)
            assert distance(full(many), full(alone)) < 1e-6, (name, kind)
            assert several.progress.steps == 20 and abs(several.progress.kept - one.progress.kept) < 1e-9
            votes, expected = several.votes(many), one.votes(alone)
            assert all((votes[g].given_up == expected[g].given_up).all() for g in votes.ballots)
            torch.testing.assert_close(several(many).detach(), one(alone).detach(), rtol=1e-6, atol=1e-9)


def silent_where_filters_are_local(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for name, (make, speaks) in PENALTIES.items():
        many, penalty = sharded(), make(coupling)
        penalty.proximal_(many, 0.1)  # the layout is agreed on once
        with mock.patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as calls:
            penalty.proximal_(many, 0.1)
        assert calls.call_count == int(speaks), name


def mixed_precision(share, folder):
    """The forward pass is in bfloat16; what the penalty sees is what the optimizer moves, in float32."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    many, alone = sharded(policy=policy, dtype=torch.float32), residual().eval()
    penalty, one = (DWGL(coupling, 0.05, direction=(0.0, 8.0)) for _ in range(2))
    for norm in (module for module in many.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean, norm.running_var = norm.running_mean.bfloat16(), norm.running_var.bfloat16()
    many(torch.zeros(2, 3, 8, 8))
    value = penalty(many)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.detach(), one(alone).detach(), rtol=1e-6, atol=0)
    value.backward()
    one(alone).backward()
    gradients = {n: p.grad.full_tensor() for n, p in many.named_parameters() if p.grad is not None}
    assert gradients.keys() == {n for n, p in alone.named_parameters() if p.grad is not None}
    assert max(float((g - alone.get_parameter(n).grad).abs().max()) for n, g in gradients.items()) < 1e-6


def a_rank_that_differs(share, folder):
    model = residual()
    coupling = analyze(model, torch.zeros(2, 3, 8, 8))
    check_ranks(plan(coupling, model, macs=0.5), model)
    if dist.get_rank() == 1:
        with torch.no_grad():
            model.fc.bias.add_(1)
    with pytest.raises(PlanError, match="rank 1 differs from rank 0 in its weights and its plan; broadcast"):
        check_ranks(plan(coupling, model, macs=0.5), model)
    drawn = plan(coupling, residual(), macs=0.5)
    other = dataclasses.replace(drawn, versions={**drawn.versions, "torch": "1.0"}) if dist.get_rank() else drawn
    with pytest.raises(PlanError, match="rank 1 differs from rank 0 in .*its versions; broadcast"):
        check_ranks(other, residual())


def decays(coupling):
    drawn = plan(coupling, residual(), channels=0.5, criterion="l1")
    return {"sparse learning": SparseLearning(coupling, 0.05), "growing": GReg1(coupling, drawn, step=0.01, every=2),
            "incremental": IncReg(coupling, 0.5, peak=0.01), "balanced": AutoBalanced(coupling, drawn, 0.05),
            "probabilistic": SPP(coupling, 0.5, peak=0.2)}


FORM = {"probabilistic": "none"}  # it masks, and decays nothing


def decayed(model, penalty, optimizer, form, share, first=0, last=20):
    for step in range(first, last):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step)).double()[share]
        with penalty.masked(model) if isinstance(penalty, SPP) else contextlib.nullcontext():
            loss = model(x).square().mean()
            (loss + penalty(model) if form == "loss" else loss).backward()
        if form == "gradients":
            penalty.add_(model)
        optimizer.step()
        optimizer.zero_grad()


def decays_are_those_of_one_process(share, folder, only=tuple(OPTIMIZERS)):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for name in decays(coupling):
        for kind in only:
            form = FORM.get(name, {"sgd": "gradients", "adamw": "loss"}[kind])
            alone, many, one, several = residual().double().eval(), sharded(), *(decays(coupling)[name] for _ in "12")
            decayed(alone, one, OPTIMIZERS[kind](alone.parameters()), form, slice(None))
            decayed(many, several, OPTIMIZERS[kind](many.parameters()), form, share)
            assert distance(full(many), full(alone)) < 1e-6, (name, kind)


def decays_interrupted(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for name, penalty in decays(coupling).items():
        many = sharded()
        decayed(many, penalty, torch.optim.SGD(many.parameters(), 0.05), FORM.get(name, "gradients"), share, 0, 10)
        dcp.save({"model": {n: p.detach() for n, p in many.named_parameters()}, "penalty": penalty},
                 checkpoint_id=f"{folder}/{name}")


def decays_resumed(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for name, penalty in decays(coupling).items():
        many = sharded()
        dcp.load({"model": {n: p.detach() for n, p in many.named_parameters()}, "penalty": penalty},
                 checkpoint_id=f"{folder}/{name}")
        decayed(many, penalty, torch.optim.SGD(many.parameters(), 0.05), FORM.get(name, "gradients"), share, 10, 20)
        alone, one = residual().double().eval(), decays(coupling)[name]
        decayed(alone, one, torch.optim.SGD(alone.parameters(), 0.05), FORM.get(name, "gradients"), slice(None))
        assert distance(full(many), full(alone)) < 1e-6, name


def terms_are_those_of_one_process(share, folder):
    """Plain terms of a loss: their values, and what they pull at."""
    branches = ["one.conv*", "two.conv*"]
    for term in (shape_wise, functools.partial(depth_wise, branches=branches), SoftSharing(4).double()):
        alone, many = residual().double().eval(), sharded()
        expected, value = term(alone), term(many)
        torch.testing.assert_close(whole(value.detach()), expected.detach(), rtol=1e-9, atol=0)
        expected.backward()
        value.backward()
        assert distance(gradients(many), gradients(alone)) < 1e-9
    assert term.quantise_(many) == term.quantise_(alone)
    assert distance(full(many), full(alone)) < 1e-9


def gradients(model):
    return {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def a_plan_of_shards(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    many = sharded(dtype=torch.float32)
    assert plan(coupling, many, macs=0.5) == plan(coupling, residual(), macs=0.5)
    if dist.get_rank() == 1:
        with torch.no_grad():
            many.one.conv1.weight.to_local().fill_(float("nan"))
    with pytest.raises(InputError, match="'one.conv1.weight' holds .* infinite or NaN values"):
        plan(coupling, many, macs=0.5)


def hybrid(share, folder):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    for make in (PENALTIES["joint"][0], PENALTIES["with scales"][0]):
        alone, many, one, several = residual().double().eval(), sharded(mesh), make(coupling), make(coupling)
        train(alone, one, OPTIMIZERS["sgd"](alone.parameters()), "proximal", slice(None), 0, 6)
        train(many, several, OPTIMIZERS["sgd"](many.parameters()), "proximal", share, 0, 6)
        assert distance(full(many), full(alone)) < 1e-6


def another_way_is_refused(share, folder):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, 2))
    model = residual()
    model.stem.weight = torch.nn.Parameter(distribute_tensor(model.stem.weight.detach(), mesh, [Shard(0), Shard(1)]))
    with pytest.raises(InputError, match="must lie in shards of one dimension"):
        DWGL(analyze(residual(), torch.zeros(2, 3, 8, 8))).proximal_(model, 0.1)
    model.stem.weight = torch.nn.Parameter(distribute_tensor(residual().stem.weight.detach(), mesh,
                                                             [Replicate(), Replicate()]))
    DWGL(analyze(residual(), torch.zeros(2, 3, 8, 8))).proximal_(model, 0.1)


def resumable(many, penalty, optimizer):
    return {"model": {n: p.detach() for n, p in many.named_parameters()}, "penalty": penalty,
            "momentum": {n: optimizer.state[p]["momentum_buffer"] for n, p in many.named_parameters()
                         if "momentum_buffer" in optimizer.state[p]}}


def interrupted(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    many, penalty = sharded(), DWGL.towards(coupling, macs=0.5, steps=15)
    optimizer = OPTIMIZERS["sgd"](many.parameters())
    train(many, penalty, optimizer, "proximal", share, 0, 10)
    dcp.save(resumable(many, penalty, optimizer), checkpoint_id=folder)


def resumed(share, folder):
    coupling = analyze(residual(), torch.zeros(2, 3, 8, 8))
    many, penalty = sharded(), DWGL.towards(coupling, macs=0.5, steps=15)
    optimizer = OPTIMIZERS["sgd"](many.parameters())
    for p in many.parameters():
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    dcp.load(resumable(many, penalty, optimizer), checkpoint_id=folder)
    assert penalty.progress.steps == 10
    train(many, penalty, optimizer, "proximal", share, 10, 20)
    alone, one = residual().double().eval(), DWGL.towards(coupling, macs=0.5, steps=15)
    train(alone, one, OPTIMIZERS["sgd"](alone.parameters()), "proximal", slice(None))
    assert distance(full(many), full(alone)) < 1e-6 and penalty.progress.released
    whole = residual()
    whole.load_state_dict({**whole.state_dict(), **full(many)})
    drawn = [None] * dist.get_world_size()
    dist.all_gather_object(drawn, plan(coupling, whole, macs=0.5, vote="intersection").to_dict()["keep"])
    assert all(other == drawn[0] for other in drawn) and drawn[0]


def test_two_processes(tmp_path):
    quick = functools.partial(same_as_one_process, only=("with scales",))
    quick_decays = functools.partial(decays_are_those_of_one_process, only=("sgd",))
    run(2, [quick, silent_where_filters_are_local, mixed_precision, a_rank_that_differs, a_plan_of_shards,
            quick_decays, terms_are_those_of_one_process], tmp_path)


@pytest.mark.slow
def test_four_processes_and_a_checkpoint_of_two(tmp_path):
    run(2, [interrupted, decays_interrupted, same_as_one_process, decays_are_those_of_one_process], tmp_path)
    run(4, [resumed, decays_resumed, same_as_one_process, decays_are_those_of_one_process,
            terms_are_those_of_one_process, silent_where_filters_are_local, hybrid, another_way_is_refused], tmp_path)
