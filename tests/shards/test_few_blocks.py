"""A plan is proven on instances with few blocks: which blocks they have, and what they would catch."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import fxprune
from fxprune import verify_shards
from fxprune.errors import InputError, PlanError, VerificationError
from fxprune.shards import few_blocks


class Block(nn.Module):
    def __init__(self, width, inner, scale=1.0):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        # A mere attribute that holds numbers.
        self.scale = torch.full((1,), scale, device="cpu")

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)) * self.scale)


class Stacked(nn.Module):
    def __init__(self, inner=(8, 8, 8, 12, 8, 12), shared=True):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        if shared:
            self.head.weight = self.embed.weight
        self.blocks = nn.ModuleList(Block(6, n) for n in inner)
        self.register_buffer("positions", torch.arange(5), persistent=False)

    def forward(self, x):
        h = self.embed(x) + self.embed(self.positions)[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(h)


TOKENS = torch.zeros(1, 5, dtype=torch.int64)


def drawn(model, **widths):
    coupling = fxprune.analyze(model, TOKENS)
    return fxprune.plan(coupling, model, widths={f"blocks.{k[1:]}.up": n for k, n in widths.items()})


def chosen(model, plan):
    return [instance.blocks["blocks"] for instance in verify_shards(plan, model).instances]


def test_an_instance_has_every_form_and_two_blocks_of_each():
    model = Stacked()
    assert chosen(model, drawn(model, b0=4, b1=4, b2=4, b4=4, b3=6, b5=6)) == [(0, 1, 3, 5)]


def test_every_way_of_cutting_a_form_is_in_some_instance():
    model = Stacked((8,) * 6)
    # Cut to 4, 5, 6, and whole (three times): two ways an instance, in order.
    assert chosen(model, drawn(model, b0=4, b1=5, b2=6)) == [(0, 1), (2, 3)]
    # An odd one out comes with the first.
    assert chosen(model, drawn(model, b0=4, b1=5, b2=6, b3=7)) == [(0, 1), (2, 3), (0, 4)]


def test_without_a_stack_the_whole_is_the_instance():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    plan = fxprune.plan(fxprune.analyze(model, torch.zeros(1, 3)), model, channels=0.5)
    proof = verify_shards(plan, model)
    assert [i.blocks for i in proof.instances] == [{}] and proof.instances[0].parameters == 3 * 8 + 8 + 8 * 2 + 2
    assert len(proof.unproven) == 1 and "checkpoint" in proof.unproven[0]


def test_the_proof_says_what_it_is_and_what_it_is_not():
    model = Stacked((8,) * 6).bfloat16()
    proof = verify_shards(drawn(model, b0=4, b1=4, b2=4, b3=4, b4=4, b5=4), model)
    assert proof.ok and proof.instances[0].parameters == 20 * 6 + 2 * (2 * 6 * 8 + 8 + 6)
    assert proof.unproven[0] == "6 blocks of 'blocks' one behind the other"
    assert str(proof).splitlines()[0].startswith("blocks 0, 1 of 'blocks', 340 parameters: verified: ")
    assert json.loads(proof.to_json())["instances"][0]["blocks"] == {"blocks": [0, 1]}


def test_neither_the_model_nor_its_random_state_changes():
    model, state = Stacked((8,) * 6), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    verify_shards(drawn(model, b0=4), model)
    assert len(model.blocks) == 6 and all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_on_the_meta_device_as_in_memory():
    with torch.device("meta"):
        empty = Stacked((8,) * 6)
    model = Stacked((8,) * 6)
    plan = drawn(model, b0=4, b1=4, b2=4, b3=4, b4=4, b5=4)
    one, other = verify_shards(plan, empty), verify_shards(plan, model)
    assert one.ok and [i.blocks for i in one.instances] == [i.blocks for i in other.instances]


def test_a_result_that_computes_something_else_is_caught(monkeypatch):
    model = Stacked((8,) * 6)
    plan, emit = drawn(model, b0=4, b1=4), few_blocks.carry_out

    def stale(*args):
        small = emit(*args)
        for node in small.graph.find_nodes(op="call_function", target=torch.relu):
            node.target = torch.sigmoid
        small.recompile()
        return small

    monkeypatch.setattr(few_blocks, "carry_out", stale)
    with pytest.raises(VerificationError, match="relu"):
        verify_shards(plan, model)


def test_a_plan_that_breaks_a_coupling_is_caught(monkeypatch):
    model = Stacked((8,) * 6)
    plan = drawn(model, b0=4, b1=4)
    keep = {name: dict(dims) for name, dims in plan.keep.items()}
    kept = keep["blocks.1.down.weight"][1]
    keep["blocks.1.down.weight"][1] = tuple(sorted((set(range(8)) - set(kept)) | set(kept[1:])))[:4]
    broken = replace(plan, keep=keep)
    # Block 1 is in no instance, since block 0 is cut alike.
    with pytest.raises(PlanError, match=r"blocks\.1\.down\.weight"):
        verify_shards(broken, model)
    monkeypatch.setattr(fxprune.Plan, "check", lambda *_: None)
    monkeypatch.setattr(few_blocks, "_choices", lambda *_: [{"blocks": (1, 2)}])
    with pytest.raises(VerificationError, match=r"'blocks\.1\.(up|down)\..*' is not cut in an instance"):
        verify_shards(broken, model)


class ByNumber(Stacked):
    def forward(self, x):
        h = self.embed(x)
        for k in range(6):
            h = self.blocks[k](h)
        return self.head(h)


def test_what_cannot_be_tried_is_refused():
    model = ByNumber((8,) * 6)
    with pytest.raises(VerificationError, match=r"instance with blocks 0, 1 of 'blocks' does not run.*a small model"):
        verify_shards(drawn(model, b0=4, b1=4, b2=4, b3=4, b4=4, b5=4), model)
    with pytest.raises(InputError, match="plan must be a fxprune.Plan"):
        verify_shards(model, model)
    with pytest.raises(PlanError):
        verify_shards(drawn(model, b0=4), Stacked())
