"""Recovery against brute force on tiny nets, on all kinds of layers, and what it leaves behind."""

import copy
import threading
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxprune
from fxprune.capture.model_walk import aliases
from fxprune.errors import InputError, VerificationError
from fxprune.planning.criteria import reconstruction
from fxprune.planning.moments import MomentSums
from fxprune.rewrite import recovery
from tests.captioned import Captioned


def data(*shape: int, batches: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(batches)]


def planned(model: nn.Module, x: torch.Tensor, widths: dict[str, int]) -> fxprune.Plan:
    return fxprune.plan(fxprune.analyze(model, x), model, widths=widths)


def masked(model: nn.Module, plan: fxprune.Plan) -> nn.Module:
    """The original with everything that the plan removes at zero."""
    out = copy.deepcopy(model).eval()
    for name, tensor in out.state_dict().items():
        for dim, kept in plan.keep.get(name, {}).items():
            gone = [k for k in range(tensor.shape[dim]) if k not in kept]
            tensor.index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0)
    return out


def ridged(rows: torch.Tensor, target: torch.Tensor, start: torch.Tensor, ridge: float) -> torch.Tensor:
    """torch.linalg.lstsq of the centred rows, with rows for λ‖W − W₀‖² below them."""
    rows, target, start = rows.double(), target.double(), start.double()
    x, y = rows - rows.mean(0), target - target.mean(0)
    root = (ridge * torch.linalg.eigvalsh(x.T @ x).clamp_min(0).mean()).sqrt()
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.lstsq(torch.cat([x, root * eye]), torch.cat([y, root * start])).solution


def test_a_linear_layer_is_the_least_squares_on_the_masked_original():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    batches = data(40, 5)
    plan = planned(model, batches[0], {"0": 5})
    small = fxprune.apply(model, plan, recover="least_squares", data=batches)
    (layer,) = [layer for layer in fxprune.record(small).recovery.layers if layer.layer == "2.weight"]
    x = torch.cat(batches)
    kept = list(plan.keep["2.weight"][1])
    rows, target = masked(model, plan)[:2](x)[:, kept], model(x)
    expected = ridged(rows, target, model[2].weight[:, kept].T, layer.ridge)
    torch.testing.assert_close(small.state_dict()["2.weight"].double(), expected.T, atol=1e-5, rtol=1e-4)
    bias = target.mean(0) - rows.mean(0) @ expected.float()
    torch.testing.assert_close(small.state_dict()["2.bias"], bias, atol=1e-5, rtol=1e-4)
    assert layer.taken and layer.after < layer.before and layer.rows == 120


def test_a_padded_convolution_is_the_least_squares_of_its_patches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, padding=1)).eval()
    batches = data(4, 3, 7, 7)
    plan = planned(model, batches[0], {"0": 4})
    small = fxprune.apply(model, plan, recover="least_squares", data=batches)
    ridge = next(layer.ridge for layer in fxprune.record(small).recovery.layers if layer.layer == "2.weight")
    x, kept = torch.cat(batches), list(plan.keep["2.weight"][1])
    hidden = masked(model, plan)[:2](x)[:, kept]
    rows = F.unfold(hidden, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
    target = model(x).flatten(2).transpose(1, 2).flatten(0, 1)
    expected = ridged(rows, target, model[2].weight[:, kept].flatten(1).T, ridge)
    torch.testing.assert_close(small.state_dict()["2.weight"].flatten(1).double(), expected.T, atol=1e-5, rtol=1e-4)


def test_obs_is_the_least_squares_on_the_layers_own_inputs(monkeypatch):
    monkeypatch.setattr(reconstruction, "DAMPING", 1e-12)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    batches = [batch.double() for batch in data(40, 5)]
    plan = planned(model, batches[0], {"0": 5, "2": 2})
    small = fxprune.apply(model, plan, recover="obs", data=batches)
    x, state = torch.cat(batches), small.state_dict()
    for name, first in (("2", 2), ("4", 4)):
        rows = model[:first](x)[:, list(plan.keep[f"{name}.weight"][1])]
        target = model[:first + 1](x)[:, list(plan.keep[f"{name}.weight"].get(0, range(2)))]
        again = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(x), 1).double()], 1), target).solution
        torch.testing.assert_close(state[f"{name}.weight"], again[:-1].T, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(state[f"{name}.bias"], again[-1], atol=1e-6, rtol=1e-5)


class Residual(nn.Module):
    """``scale · norm(conv(relu(stem x))) + stem x``: the stem's channels are the sum's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.conv = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1, bias=False)
        self.norm, self.scale, self.short = nn.BatchNorm2d(6), nn.Parameter(torch.rand(6, 1, 1) + 0.5), \
            nn.Conv2d(5, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        inner = self.inner(x).relu()
        short = self.short(inner)
        return self.head((short + self.scale * self.norm(self.conv(inner))).relu())


def test_a_layer_in_a_sum_aims_at_the_sum_less_the_shortcut():
    torch.manual_seed(0)
    model = Residual().eval()
    model.norm.running_var.uniform_(0.5, 2)
    batches = data(6, 3, 4, 4)
    plan = planned(model, batches[0], {"inner": 3})
    small = fxprune.apply(model, plan, recover="least_squares", data=batches)
    recovery = {layer.layer: layer for layer in fxprune.record(small).recovery.layers}
    x, kept = torch.cat(batches), list(plan.keep["conv.weight"][1])
    state = small.state_dict()
    hidden = model.inner(x).relu()
    # The shortcut was recovered first: what it carries now is what is left to make up for.
    now = F.conv2d(hidden[:, kept], state["short.weight"], state["short.bias"])
    factor = (model.scale.flatten() * model.norm.weight / (model.norm.running_var + 1e-5).sqrt()).view(-1, 1, 1)
    aim = model.conv(hidden) + (model.short(hidden) - now) / factor
    flat = [t.movedim(1, -1).flatten(0, 2) for t in (hidden[:, kept], aim)]
    expected = ridged(*flat, model.conv.weight[:, kept].flatten(1).T, recovery["conv.weight"].ridge)
    torch.testing.assert_close(state["conv.weight"].flatten(1).double(), expected.T, atol=1e-4, rtol=1e-3)
    assert fxprune.verify(model, small, plan).ok


def test_batch_norms_get_the_moments_of_what_reaches_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4),
                          nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    batches = data(8, 3, 4, 4)
    whole = model[2](model[:2](torch.cat(batches))).detach()
    model[3].running_mean.copy_(whole.mean((0, 2, 3)))  # as a trained norm's are
    model[3].running_var.copy_(whole.var((0, 2, 3)))
    small = fxprune.apply(model, planned(model, batches[0], {"0": 3}), recover="statistics", data=batches)
    state = small.state_dict()
    hidden = F.conv2d(F.conv2d(torch.cat(batches), state["0.weight"], state["0.bias"]).relu(), state["2.weight"])
    torch.testing.assert_close(state["3.running_mean"], hidden.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["3.running_var"], hidden.var((0, 2, 3), correction=0), atol=1e-5, rtol=1e-4)
    assert torch.equal(state["2.weight"], model[2].weight[:, list(fxprune.record(small).plan.keep["2.weight"][1])])
    # The mean of the last layer's outputs is in its bias.
    outputs = torch.cat([small(b) - model(b) for b in batches])
    assert outputs.mean((0, 2, 3)).abs().max() < 1e-5


def test_where_only_biases_move_no_gram_matrix_is_made(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2)).eval()
    model[0].bias.data += 1  # so that channels have means that are missed
    batches, widths = data(10, 3, 4, 4), []
    add_ = MomentSums.add_
    monkeypatch.setattr(MomentSums, "add_", lambda sums, x, y: (widths.append(x.shape[2]), add_(sums, x, y))[1])
    small = fxprune.apply(model, planned(model, batches[0], {"0": 2}), recover="statistics", data=batches)
    recovery = fxprune.record(small).recovery
    assert set(widths) == {1} and set(recovery.tensors) == {"2.bias"}
    cut = copy.deepcopy(small)
    cut.get_submodule("2").bias.data.copy_(model[2].bias)
    gaps = [(model(b) - cut(b)).detach().movedim(1, -1) for b in batches]
    fitted, held = (torch.cat([gap[part].flatten(0, 2) for gap in gaps]) for part in (slice(8), slice(8, None)))
    spread = torch.cat([model(b)[8:].detach().movedim(1, -1).flatten(0, 2) for b in batches]).var(0, correction=0).sum()
    (layer,) = recovery.layers
    assert layer.before == pytest.approx(float(held.square().mean(0).sum() / spread), rel=1e-4)
    assert layer.after == pytest.approx(float((held - fitted.mean(0)).square().mean(0).sum() / spread), rel=1e-4)
    whole = torch.cat([fitted, held]).mean(0)
    torch.testing.assert_close(small.get_submodule("2").bias, model[2].bias + whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["statistics", "least_squares", "obs"])
def test_batch_norms_that_get_worse_on_held_out_samples_stay(method):
    """What is held out is like what the norm was trained on, and what is fitted on is not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4),
                          nn.GELU(), nn.Conv2d(4, 2, 1)).eval()
    alike = data(10, 3, 4, 4)
    hidden = model[2](model[:2](torch.cat(alike))).detach()
    model[3].running_mean.copy_(hidden.mean((0, 2, 3)))
    model[3].running_var.copy_(hidden.var((0, 2, 3)))
    unlike = [torch.cat([20 * batch[:8] + 5, batch[8:]]) for batch in alike]
    plan = planned(model, alike[0], {"0": 5})
    for batches, taken in ((alike, True), (unlike, False)):
        small = fxprune.apply(model, plan, recover=method, data=batches)
        layer = next(x for x in fxprune.record(small).recovery.layers if x.layer == "3.running_var")
        assert layer.taken is taken and (layer.after < layer.before) is taken
        assert torch.equal(small.get_submodule("3").running_var, model[3].running_var) is not taken
        assert ("3.running_var" in fxprune.record(small).recovery.tensors) is taken


@pytest.mark.parametrize(("size", "taken"), [(1, False), (5, False), (10, True)])
def test_a_batch_norm_that_too_little_reaches_is_named(size, taken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    batch = torch.randn(size, 4)
    small = fxprune.compress(model, batch, channels=0.5, recover="statistics", data=[batch])
    found = fxprune.record(small).recovery
    assert any(layer.layer == "4.running_var" for layer in found.layers) is taken
    words = (f"a variance needs two values a channel to be made from and two held out, and {int(0.8 * size)} and "
             f"{size - int(0.8 * size)} arrived: pass more samples")
    assert found.skipped.get("4.running_var", "").startswith(words) is not taken
    assert taken or torch.equal(small.get_submodule("4").running_var, model[4].running_var)


def test_a_batch_norm_that_infinite_values_reach_is_named():
    class Exponential(nn.Module):
        def forward(self, x):
            return x.exp()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), Exponential(), nn.BatchNorm1d(8)).eval()
    small = fxprune.compress(model, torch.randn(20, 4), channels=0.5, recover="statistics",
                             data=[1e4 * torch.randn(20, 4)])
    found = fxprune.record(small).recovery
    assert found.skipped["4.running_var"].startswith("what reaches it must be finite, and is not")
    assert set(small.get_submodule("4").running_var.tolist()) == {1.0}


def test_a_decomposition_that_does_not_converge_is_made_another_way(monkeypatch):
    from fxprune.rewrite import least_squares

    rows = torch.randn(2, 3, 5, dtype=torch.float64)
    gram = rows.transpose(1, 2) @ rows
    whole = least_squares.eigen(gram)

    def fail(matrix):
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    values, vectors = least_squares.eigen(gram)
    torch.testing.assert_close(values, whole[0])
    torch.testing.assert_close(vectors * values.unsqueeze(1) @ vectors.transpose(1, 2), gram)
    # Where only biases move, nothing is decomposed.
    monkeypatch.setattr(least_squares, "eigen", fail)
    model, batches = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval(), data(8, 3, 4, 4)
    small = fxprune.compress(model, batches[0], channels=0.5, recover="statistics", data=batches)
    assert fxprune.record(small).recovery.layers[0].taken


@pytest.mark.parametrize("method", ["statistics", "least_squares", "obs"])
def test_a_layer_over_tokens_of_fewer_channels_is_named(method):
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.tokens, self.out = nn.Linear(6, 24), nn.Linear(5, 5), nn.Linear(24, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.tokens(self.into(x).relu().transpose(1, 2)).transpose(1, 2))

    torch.manual_seed(0)
    model, batches = Mixing().eval(), data(16, 5, 6)
    small = fxprune.compress(model, batches[0], channels=0.5, recover=method, data=batches)
    found = fxprune.record(small).recovery
    assert found.skipped == {"tokens.weight": "applied to each channel alone, of which there are fewer now"}
    assert [layer.layer for layer in found.layers if layer.taken] == ["out.weight"]


def test_a_batch_norm_that_is_called_twice_is_named():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.next, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.next(self.norm(self.stem(x)).relu())).relu())

    torch.manual_seed(0)
    model, batches = Twice().eval(), data(8, 3, 4, 4)
    small = fxprune.compress(model, batches[0], channels=0.5, recover="statistics", data=batches)
    assert "used more than once" in fxprune.record(small).recovery.skipped["norm.running_var"]
    assert set(small.norm.running_var.tolist()) == {1.0}


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Letters(nn.Module):
    """Per head: ``einsum``, and a weight that stands in front of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, 6, 5)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        return self.b @ torch.einsum("bhi,hoi->boh", x, self.a).relu()


class Reads(nn.Module):
    """Its Python reads data: a module, not a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        hidden = self.up(x).relu()
        return self.down(hidden if float(hidden.sum()) > -1 else -hidden)


STRUCTURES = {
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2),
                                      nn.ReLU(), nn.Conv2d(8, 3, 1)), (8, 4, 6, 6), "graph"),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(),
                                        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8),
                                        nn.ReLU6(), nn.Conv2d(8, 3, 1)), (8, 4, 6, 6), "graph"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1)),
                   (8, 4, 5, 5), "graph"),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 3, 3, dilation=2)),
                      (40, 4, 12), "graph"),
    "flattened": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)),
                  (24, 3, 5, 5), "graph"),
    "attention": (Heads, (8, 5, 16), "graph"),
    "einsum": (Letters, (30, 2, 5), "graph"),
    "module": (Reads, (30, 6), "module"),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("method", ["statistics", "least_squares", "obs"])
def test_outputs_come_nearer_on_new_data(name, method):
    torch.manual_seed(3)
    make, shape, mode = STRUCTURES[name]
    model, batches = make().eval(), data(*shape, batches=4)
    small = fxprune.compress(model, batches[0], channels=0.6, data=batches[:3], recover=method)
    record = fxprune.record(small)
    assert record.mode == mode and record.verification.ok and record.recovery.method == method
    plain = fxprune.apply(model, record.plan)
    with torch.no_grad():
        errors = [float((net.eval()(batches[3]) - model(batches[3])).square().mean()) for net in (small, plain)]
    assert errors[0] < {"least_squares": 0.9, "obs": 1.02, "statistics": 1.02}[method] * errors[1]
    biased = any(name.endswith("bias") for name in small.state_dict())
    # Where rows are few, obs may find nothing better than the cut.
    assert any(layer.taken for layer in record.recovery.layers) or method == "obs" or not biased


def test_a_permuted_plan_is_recovered_at_its_own_places():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    batches = data(50, 5)
    coupling, straight = fxprune.analyze(model, batches[0]), planned(model, batches[0], {"0": 6, "2": 5})
    kept = {name: group.kept[::-1] for name, group in straight.groups.items()}
    turned = fxprune.Plan.build(coupling.groups, kept, signature=straight.signature, inputs=straight.inputs,
                                digest=straight.digest, aliases=aliases(model))
    one, other = (fxprune.apply(model, plan, recover="least_squares", data=batches) for plan in (straight, turned))
    assert not torch.equal(one.state_dict()["2.weight"], other.state_dict()["2.weight"])
    torch.testing.assert_close(one(batches[0]), other(batches[0]), atol=1e-4, rtol=1e-3)
    assert fxprune.verify(model, other, turned).ok


def test_nothing_cut_is_nothing_changed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    batches = data(8, 3, 4, 4)
    small = fxprune.apply(model, planned(model, batches[0], {"0": 6}), recover="least_squares", data=batches)
    assert fxprune.record(small).recovery.tensors == {}
    assert all(torch.equal(small.state_dict()[name], value) for name, value in model.state_dict().items())


def test_what_gets_worse_is_not_taken():
    """The held-out rows are of another kind than those that are fitted on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    x = torch.randn(10, 3)
    # Outputs at the fitted rows say nothing of those at the held-out ones, and the cut loses nothing there.
    with torch.no_grad():
        model[0].weight[:6, 0], model[0].weight[6:, 0] = 5.0, 0.0
        model[0].bias[6:] = 3.0
    batch = x.clone()
    batch[:, 0] = torch.tensor([1.0] * 8 + [-9.0] * 2)
    coupling = fxprune.analyze(model, x)
    plan = fxprune.plan(coupling, model, widths={"0": 6}, criterion=lambda group, tensors:
                        torch.cat([torch.zeros(6), torch.ones(group.size - 6)]))
    small = fxprune.apply(model, plan, recover="least_squares", data=[batch])
    (layer,) = [entry for entry in fxprune.record(small).recovery.layers if entry.layer == "2.weight"]
    assert not layer.taken and layer.after >= layer.before
    assert torch.equal(small.state_dict()["2.weight"], model[2].weight[:, 6:])


def test_a_weight_that_is_used_twice_is_named():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.down(self.up(x).relu()) + self.down(self.up(-x).relu())

    model, batches = Twice(), data(20, 4)
    small = fxprune.compress(model, batches[0], channels=0.5, data=batches, recover="least_squares")
    assert "used more than once" in fxprune.record(small).recovery.skipped["down.weight"]


def test_the_users_model_and_generators_stay_as_they_are():
    torch.manual_seed(0)
    model = Residual().train()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    batches, state = data(6, 3, 4, 4), torch.get_rng_state()
    fxprune.compress(model, batches[0], channels=0.6, data=batches, criterion="taylor", recover="least_squares")
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_recovery_leaves_nothing_behind(error, monkeypatch):
    steps = count()

    def interrupted(*args: object) -> None:
        if next(steps) == 1:
            raise error("enough")
        return solve(*args)

    solve = recovery.solve
    monkeypatch.setattr(recovery, "solve", interrupted)
    torch.manual_seed(0)
    model = Residual().eval()
    before, threads = copy.deepcopy(model.state_dict()), threading.active_count()
    with pytest.raises(error):
        fxprune.compress(model, torch.randn(1, 3, 4, 4), channels=0.6, data=data(6, 3, 4, 4), recover="least_squares")
    assert threading.active_count() == threads
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


class Led(nn.Module):
    """Python looks at the data, and takes the two layers in one order or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (self.one, self.two) if x.sum() < 1000 else (self.two, self.one)
        return self.head(second(first(self.stem(x).relu()).relu()).relu())


@pytest.mark.parametrize("options", [{"recover": "least_squares"}, {"criterion": "activation"}])
def test_a_batch_that_leads_the_model_elsewhere_is_not_taken_for_another(options):
    """Both ways have as many operators, of the same shapes."""
    model, batches = Led().eval(), data(12, 8)
    assert fxprune.analyze(model, batches[0]).mode == "module"
    fxprune.compress(model, batches[0], channels=0.5, form="module", data=batches, **options)
    with pytest.raises(InputError, match="batch 1 leads its Python elsewhere; pass batches that all go one way"):
        fxprune.compress(model, batches[0], channels=0.5, form="module", data=[batches[0], batches[1] + 1000],
                         **options)


def test_what_only_a_first_call_does_is_no_part_of_a_run():
    class Switching(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "switched"):
                self.switched = x.neg().neg() is not None
            return super().forward(x)

    torch.manual_seed(0)
    model, batches = Switching(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), data(40, 5)
    plain = nn.Sequential(*copy.deepcopy(list(model)))
    made = [fxprune.apply(net, planned(net, batches[0], {"0": 5}), recover="least_squares", data=batches)
            for net in (model, plain)]
    assert all(torch.equal(a, b) for a, b in zip(*(net.parameters() for net in made), strict=True))


def captions(number: int) -> torch.Tensor:
    return torch.cat([torch.full((8, 1), 39), (torch.arange(24) * (number + 7) % 39).view(8, 3)], 1)


@pytest.mark.parametrize("options", [{"recover": "least_squares"}, {"criterion": "obs"}])
def test_data_that_the_model_takes_stand_in_for_random_inputs_that_it_does_not_take(options):
    torch.manual_seed(0)
    model, batches = Captioned().eval(), [captions(number) for number in range(3)]
    small = fxprune.compress(model, batches[0], channels=0.5, data=iter(batches), samples=None, **options)
    record = fxprune.record(small)
    assert record.verification.ok and small.get_submodule("into").out_features == 8
    assert record.recovery is None or record.recovery.samples == 24
    with pytest.raises(InputError, match="raised ValueError on batch 0: no image token"):
        fxprune.compress(model, batches[0], channels=0.5, data=[torch.zeros(8, 4, dtype=torch.int64)], **options)


def test_a_cut_network_that_does_not_run_says_what_to_do(monkeypatch):
    def refusing(model: nn.Module, example: object) -> object:
        if any(module.out_features == 4 for module in model.modules() if isinstance(module, nn.Linear)):
            raise RuntimeError("strides should be multiple of 16 bytes")
        return weighted(model, example)

    weighted = recovery.weighted
    monkeypatch.setattr(recovery, "weighted", refusing)
    model, batches = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), data(40, 5)
    with pytest.raises(InputError, match="cut network must run.*strides should.*pass round_to=8, or 16"):
        fxprune.compress(model, batches[0], channels=0.5, recover="statistics", data=batches)


def test_values_that_recovery_did_not_leave_are_found():
    torch.manual_seed(0)
    model, batches = Residual().eval(), data(6, 3, 4, 4)
    small = fxprune.compress(model, batches[0], channels=0.6, data=batches, recover="least_squares")
    plan = fxprune.record(small).plan
    with torch.no_grad():
        small.get_parameter("head.weight")[0, 0] += 1
    with pytest.raises(InputError, match="'head.weight' must hold what recovery left in it"):
        fxprune.verify(model, small, plan)


def test_values_that_nothing_recovered_are_still_compared():
    torch.manual_seed(0)
    model, batches = Residual().eval(), data(6, 3, 4, 4)
    small = fxprune.compress(model, batches[0], channels=0.6, data=batches, recover="statistics")
    with torch.no_grad():
        small.get_parameter("scale")[0] += 1
    with pytest.raises(VerificationError, match="'scale' must hold the planned slice"):
        fxprune.verify(model, small, fxprune.record(small).plan)


@pytest.mark.parametrize(("arguments", "text"), [
    ({"recover": "least_squares"}, "learns from data, and none was given"),
    ({"recover": "magic", "data": [torch.randn(2, 3, 4, 4)]}, "recovery"),
    ({"recover": "statistics", "data": []}, "at least one batch"),
    ({"recover": "statistics", "data": [torch.randn(2, 5, 4, 4)]}, "raised RuntimeError on batch 0"),
    ({"recover": "statistics", "data": [torch.full((2, 3, 4, 4), torch.nan)]}, "must be finite, and batch 0"),
    ({"recover": "statistics", "data": [torch.zeros(0, 3, 4, 4)]}, "batch 0 is empty"),
    ({"recover": "statistics", "data": 3}, "iterable of batches"),
    ({"recover": "statistics", "data": ["cat"]}, "must yield tensors"),
    ({"recover": "statistics", "data": iter([torch.randn(2, 3, 4, 4)]), "criterion": "taylor"},
     "exhausted after one pass"),
    ({"recover": "statistics", "data": [torch.randn(2, 3, 4, 4)], "samples": 0}, "samples must be an integer >= 1"),
])
def test_bad_input(arguments, text):
    with pytest.raises(InputError, match=text):
        fxprune.compress(Residual(), torch.randn(1, 3, 4, 4), channels=0.6, **arguments)


def test_fewer_rows_than_columns_and_dead_inputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
    with torch.no_grad():
        model[0].bias[:20] = -100
    small = fxprune.compress(model, torch.randn(1, 5), channels=0.9, data=[torch.randn(6, 5)], recover="least_squares")
    assert all(torch.isfinite(t).all() for t in small.state_dict().values())
