"""The loss term against its formula and against autograd; the proximal step against numeric minimisation."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from penalty_nets import VOTERS, residual
from scipy.optimize import minimize
from torch import nn

import fxprune
from fxprune import analyze
from fxprune import plan as draw
from fxprune.training import DWGL, Ramp, WarmUp

OPTIONS = [{}, {"include_scale": True}, {"consumers": True}, {"joint": True}, {"size_weighting": True},
           {"include_scale": True, "consumers": True, "size_weighting": True, "direction": (0.0, 3.0), "power": 2.0}]


def rows(weight: torch.Tensor, dim: int = 0) -> torch.Tensor:
    return weight.movedim(dim, 0).flatten(1)


def direction(n: int, low: float, high: float, power: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.linspace(0, 1, n) ** power


def reference(model: nn.Module, coupling, dwgl: DWGL) -> torch.Tensor:
    """The formula, written out channel by channel, under autograd."""
    parameters = dict(model.named_parameters())
    scale_of = {"stem": "bn", "one.conv1": "one.bn1", "one.conv2": "one.bn2", "two.conv1": "two.bn1",
                "two.conv2": "two.bn2"}
    total = torch.zeros((), dtype=next(model.parameters()).dtype)
    for group in coupling.prunable.values():
        a = direction(group.size, *dwgl.direction, dwgl.power).tolist()
        sets = [[(v, True)] for v in group.voters] + [[(c, False)] for c in group.consumers if dwgl.consumers]
        for members in [[(m, True) for m in (*group.voters, *group.consumers)]] if dwgl.joint else sets:
            for i in range(group.size):
                parts = []
                for member, voter in members:
                    parts += [rows(parameters[member.name], member.dim)[k].flatten()
                              for k in member.index[member.channel == i]]
                    scale = scale_of.get(member.layer)
                    if voter and scale and (dwgl.joint or dwgl.include_scale) and member.role == "producer":
                        parts.append(parameters[f"{scale}.weight"][i:i + 1])
                block = torch.cat(parts)
                weight = len(block) ** 0.5 if dwgl.size_weighting else 1.0
                total = total + a[i] * weight * block.norm()
    return dwgl.strength * total


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")
def test_the_loss_is_the_formula_and_its_gradient_is_autograds(model, coupling, options):
    dwgl = DWGL(coupling, 0.1, **options)
    model.double()
    ours = dwgl(model)
    theirs = reference(model, coupling, dwgl)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    ours.backward()
    parameters = dict(model.named_parameters())
    expected = torch.autograd.grad(theirs, list(parameters.values()), allow_unused=True)
    for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        zero = torch.zeros_like(parameter)
        torch.testing.assert_close(parameter.grad if parameter.grad is not None else zero,
                                   zero if gradient is None else gradient, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")
def test_gradcheck(options):
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    dwgl = DWGL(analyze(net, torch.zeros(1, 2, 3, 3, dtype=torch.float64)), 1.0, **options)
    names = [name for name, _ in net.named_parameters()]

    def loss(*values):
        copied = copy.deepcopy(net)
        for name, value in zip(names, values, strict=True):
            owner, _, leaf = name.rpartition(".")
            copied.get_submodule(owner)._parameters[leaf] = value
        return dwgl(copied)

    assert torch.autograd.gradcheck(loss, [p.detach().clone().requires_grad_() for p in net.parameters()])


def test_gradient_of_a_zero_filter_is_zero(model, coupling):
    with torch.no_grad():
        model.stem.weight[2] = 0
    DWGL(coupling, 1.0)(model).backward()
    assert model.stem.weight.grad[2].count_nonzero() == 0
    assert torch.isfinite(model.stem.weight.grad).all()


def test_equal_direction_is_plain_group_lasso(model, coupling):
    expected = sum(rows(layer.weight).norm(dim=1).sum() for layer in
                   (model.stem, model.one.conv1, model.one.conv2, model.two.conv1, model.two.conv2))
    torch.testing.assert_close(DWGL(coupling, 0.5, direction=(1, 1))(model), 0.5 * expected)


def test_the_proximal_step_minimises_the_proximal_objective(model, coupling):
    dwgl, lr = DWGL(coupling, 0.3, direction=(0.5, 2.0), include_scale=True), 0.7
    before = copy.deepcopy(model)
    dwgl.proximal_(model, lr)
    for i in range(6):
        v = np.concatenate([before.one.conv1.weight[i].detach().flatten().double().numpy(),
                            [before.one.bn1.weight[i].item()]])
        threshold = lr * 0.3 * direction(6, 0.5, 2.0)[i].item()
        found = minimize(lambda w, v=v, t=threshold: 0.5 * ((w - v) ** 2).sum() + t * np.linalg.norm(w), v * 0.5,
                         method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000}).x
        ours = np.concatenate([model.one.conv1.weight[i].detach().flatten().double().numpy(),
                               [model.one.bn1.weight[i].item()]])
        np.testing.assert_allclose(ours, found, atol=2e-5)


def test_the_proximal_step_reaches_exact_zeros_and_leaves_the_rest_alone(model, coupling):
    before = copy.deepcopy(model)
    dwgl = DWGL(coupling, 1.0, direction=(0.0, 100.0), groups=["one.conv1"])
    dwgl.proximal_(model, 1.0)
    assert torch.equal(model.one.conv1.weight[0], before.one.conv1.weight[0]), "coefficient 0"
    assert not model.one.conv1.weight[1:].any()
    same = [torch.equal(a, b) for (name, a), b in zip(model.named_parameters(), before.parameters(), strict=True)
            if name != "one.conv1.weight"]
    assert all(same)


def test_frozen_parameters_are_not_shrunk(model, coupling):
    model.stem.weight.requires_grad_(False)
    before = model.stem.weight.clone()
    DWGL(coupling, 100.0).proximal_(model, 1.0)
    assert torch.equal(model.stem.weight, before)
    assert not model.one.conv2.weight.any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")
def test_memory_formats_agree(coupling, options, layout):
    a, b = residual(), residual().to(memory_format=layout)
    for net in (a, b):
        dwgl = DWGL(coupling, 0.01, **options)
        dwgl(net).backward()
        dwgl.proximal_(net, 1.0)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(coupling, dtype):
    wide, narrow = residual(), residual().to(dtype)
    torch.testing.assert_close(DWGL(coupling)(narrow).float(), DWGL(coupling)(wide), rtol=1e-2, atol=0)
    DWGL(coupling, 100.0).proximal_(narrow, 1.0)
    assert narrow.stem.weight.dtype == dtype and not narrow.stem.weight.any()


def test_autocast_changes_nothing(model, coupling):
    dwgl = DWGL(coupling)
    outside = dwgl(model)
    with torch.autocast("cpu", torch.bfloat16):
        inside = dwgl(model)
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)


def test_gradient_accumulation_adds_up(coupling):
    once, twice = residual(), residual()
    DWGL(coupling)(once).backward()
    dwgl = DWGL(coupling)
    for _ in range(2):
        (dwgl(twice) / 2).backward()
    for p, q in zip(once.parameters(), twice.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("wrap", [
    torch.nn.DataParallel, torch.optim.swa_utils.AveragedModel, torch.compile,
    lambda m: torch.compile(torch.nn.DataParallel(m)), lambda m: torch.nn.DataParallel(torch.compile(m)),
], ids=["DataParallel", "AveragedModel", "compile", "compile of DataParallel", "DataParallel of compile"])
def test_wrapped_models(model, coupling, wrap):
    dwgl, wrapped = DWGL(coupling), wrap(model)
    assert torch.equal(dwgl(wrapped), dwgl(model))
    dwgl.proximal_(wrapped, 100000.0)
    inner = next(p for n, p in wrapped.named_parameters() if n.endswith("stem.weight"))
    assert not inner.any()


def test_a_compiled_submodule(model, coupling):
    expected = DWGL(coupling)(model)
    model.one = torch.compile(model.one)
    assert torch.equal(DWGL(coupling)(model), expected)


def test_parameters_that_are_replaced_after_the_first_call_are_found(model, coupling):
    dwgl = DWGL(coupling, 1.0, direction=(1, 1))
    first = dwgl(model)
    model.load_state_dict({k: 2 * v for k, v in model.state_dict().items()}, assign=True)
    torch.testing.assert_close(dwgl(model), 2 * first)
    model.one = copy.deepcopy(model.one)
    with torch.no_grad():
        model.one.conv1.weight.zero_()
    assert dwgl(model) < 2 * first


def test_nothing_keeps_a_model_alive(coupling):
    import gc
    import weakref

    dwgl, model = DWGL(coupling), residual()
    dwgl.proximal_(model, 0.1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_votes(model, coupling):
    with torch.no_grad():
        for layer, zeros in zip(VOTERS, ([5, 6, 7], [6, 7], [4, 6, 7]), strict=True):
            model.get_submodule(layer).weight[zeros] = 0
    votes = DWGL(coupling).votes(model)
    ballots = votes["stem"]
    assert ballots.voters == VOTERS and ballots.given_up.sum(1).tolist() == [3, 2, 3]
    assert ballots.kept("intersection").tolist() == [0, 1, 2, 3, 4, 5]
    assert ballots.kept("union").tolist() == [0, 1, 2, 3]
    assert ballots.kept("majority").tolist() == [0, 1, 2, 3, 4, 5] and ballots.lost == 2
    report = votes.report()
    for word in ("one.conv2", "intersection loses", "MACs pruned"):
        assert word in report
    assert 0 < votes.fraction("union") < votes.fraction("intersection") < 1


def test_votes_agree_with_plans(model, coupling):
    from fxprune.planning.draw import plan

    with torch.no_grad():
        for layer in VOTERS:
            model.get_submodule(layer).weight[[3, 6]] = 0
        model.one.conv2.weight[5] = 0
    votes = DWGL(coupling).votes(model, 1e-3)
    for rule in ("intersection", "majority", "joint", "union"):
        drawn = plan(coupling, model, threshold=1e-3, vote=rule)
        kept = {name: tuple(channels.tolist()) for name, channels in votes.kept(rule).items()}
        assert {name: group.kept for name, group in drawn.groups.items()} == kept


def test_a_plan_that_would_empty_a_group_keeps_min_channels_and_says_so(model, coupling):
    with pytest.warns(UserWarning, match=r"threshold=100 is above every score of '.*keeps its best min_channels=2"):
        drawn = draw(coupling, model, threshold=100.0, min_channels=2)
    assert set(drawn.widths.values()) == {2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(coupling, model, threshold=0.0)


def test_a_threshold_that_would_empty_a_group_keeps_min_channels_and_says_so(model, coupling):
    votes = DWGL(coupling).votes(model, threshold=100.0, min_channels=2)
    assert {len(k) for k in votes.kept("intersection").values()} == {2}
    assert "all would go, 2 kept" in votes.report()
    strongest = votes["one.conv1"].norms[0].argsort()[-2:]
    assert votes["one.conv1"].kept("intersection").tolist() == sorted(strongest.tolist())


def test_training_is_deterministic_and_resumes_bit_for_bit(coupling):
    def train(steps, model=None, state=None, optimizer_state=None):
        model = model or residual()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        dwgl = DWGL(coupling, 0.01, schedule=Ramp(until=0.5, rate=0.5, every=2))
        dwgl.balance_(model)
        if state:
            dwgl.load_state_dict(state)
            optimizer.load_state_dict(optimizer_state)
        for step in range(*steps):
            torch.manual_seed(step)
            (model(torch.randn(4, 3, 8, 8)).square().mean() + dwgl(model)).backward()
            optimizer.step()
            optimizer.zero_grad()
            dwgl.proximal_(model, 0.05)
            dwgl.step(model)
        return model, dwgl.state_dict(), optimizer.state_dict()

    whole, state, _ = train((0, 10))
    again, *_ = train((0, 10))
    half, saved, moments = train((0, 5))
    resumed, end, _ = train((5, 10), half, saved, moments)
    for a, b, c in zip(whole.parameters(), again.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert state == end and state["factor"] > 1
    assert pickle.loads(pickle.dumps(state)) == state


def test_balance_weighs_voters_by_their_norms(model, coupling):
    with torch.no_grad():
        model.stem.weight.mul_(10)
    dwgl = DWGL(coupling, 1.0, direction=(1, 1))
    norms = {layer: rows(model.get_submodule(layer).weight).norm(dim=1).mean() for layer in VOTERS}
    dwgl.balance_(model)
    dwgl.proximal_(model, 0.01)
    after = {layer: rows(model.get_submodule(layer).weight).norm(dim=1).mean() for layer in VOTERS}
    shrunk = torch.stack([after[layer] / norms[layer] for layer in VOTERS])
    torch.testing.assert_close(shrunk, shrunk[0].expand(3), rtol=1e-4, atol=0)


def test_balance_reaches_what_was_laid_out_before(model, coupling):
    """Layouts are remembered per model; the weighed coefficients must not be those of before."""
    with torch.no_grad():
        model.stem.weight.mul_(10)
    used, fresh = DWGL(coupling, 1.0), DWGL(coupling, 1.0)
    before = used(model)
    used.balance_(model), fresh.balance_(model)
    assert torch.equal(used(model), fresh(model)) and not torch.equal(used(model), before)
    again = DWGL(coupling, 1.0)
    again(model)
    again.load_state_dict(used.state_dict())
    assert torch.equal(again(model), used(model))


class Halves(nn.Module):
    """Two groups share a layer, and a third part of it is nobody's to remove."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 9), nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, x):
        one, two, out = self.a(x).split([3, 4, 2], 1)
        return self.b(one.relu()) + self.c(two.relu()), out


def test_slices_of_no_block_stay_as_they_are():
    torch.manual_seed(0)
    model, x = Halves(), torch.randn(2, 3)
    dwgl = DWGL(fxprune.analyze(model, x), 0.5, direction=(1, 1), groups=["a"])
    before = model.a.weight.detach().clone()
    dwgl(model).backward()
    assert model.a.weight.grad[:3].any(1).all() and not model.a.weight.grad[3:].any()
    dwgl.proximal_(model, 0.1)
    assert torch.equal(model.a.weight[3:], before[3:])
    expected = before[:3] * (1 - 0.05 / before[:3].norm(dim=1, keepdim=True))
    torch.testing.assert_close(model.a.weight[:3].detach(), expected)


@pytest.mark.parametrize("every", [1, 3])
def test_a_ramp_counts_after_every_so_many_steps(every):
    schedule, counted = Ramp(until=0.5, rate=0.5, every=every), []
    now = schedule.start()
    factors = []
    for step in range(1, 7):
        now = schedule.advance(now, lambda threshold, step=step: counted.append(step) or 1.0)
        factors.append(now.factor)
    assert counted == [step for step in range(1, 7) if step % every == 0]
    assert factors == [0.5 + 0.5 * (step // every) for step in range(1, 7)]


def test_a_ramp_holds_at_its_target_exactly():
    schedule = Ramp(until=0.5, rate=0.5, every=1)
    assert schedule.advance(schedule.start(), lambda threshold: 0.5).factor == 0.5
    assert schedule.advance(schedule.start(), lambda threshold: 0.51).factor == 1.0


def test_warm_up(model, coupling):
    dwgl = DWGL(coupling, 1.0, schedule=WarmUp(steps=4))
    seen = []
    for _ in range(5):
        seen.append(dwgl.penalty)
        dwgl.step()
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_ramp_grows_until_its_target_and_holds(model, coupling):
    dwgl = DWGL(coupling, 1.0, direction=(1, 1), schedule=Ramp(until=0.9, rate=0.5, every=2))
    for _ in range(4):
        dwgl.step(model)
    assert dwgl.penalty == 1.5 and dwgl.progress.kept == 1.0
    with torch.no_grad():
        model.one.conv1.weight[2:] = 0
    for _ in range(4):
        dwgl.step(model)
    assert dwgl.penalty == 1.5 and dwgl.progress.kept < 0.9
    released = DWGL(coupling, 1.0, schedule=Ramp(until=0.9, rate=0.5, every=1, after=0.0))
    released.step(model)
    assert released.penalty == 0.0


def test_linear_layers_behind_a_flatten_and_shared_weights():
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    net = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), shared, nn.ReLU(), shared,
                        nn.Linear(6, 2))
    coupling = analyze(net, torch.zeros(1, 1, 3, 3))
    dwgl = DWGL(coupling, 1.0, direction=(1, 1), consumers=True, groups=["0"])
    expected = rows(net[0].weight).norm(dim=1).sum() + net[2].weight.view(6, 4, 4).square().sum((0, 2)).sqrt().sum()
    torch.testing.assert_close(dwgl(net), expected)


def test_tiny_filters_of_half_precision_have_finite_gradients(coupling):
    model = residual().half()
    with torch.no_grad():
        model.stem.weight.mul_(1e-6)
    DWGL(coupling, 1.0)(model).backward()
    norms = rows(model.stem.weight.grad.float()).norm(dim=1)
    alive = rows(model.stem.weight).any(dim=1)
    assert torch.isfinite(norms).all() and (norms[alive] > 0.3).all()


def test_cost_weighting_is_what_a_channel_costs_over_the_average(model, coupling):
    plain, priced = DWGL(coupling), DWGL(coupling, cost_weighting="macs")
    each = priced._blocks._coefficients / plain._blocks._coefficients
    rows = np.split(each, np.cumsum(plain._blocks.sizes)[:-1])
    ratio = {t.group: c for t, c in zip(priced._blocks.terms, rows, strict=True)}
    widths, whole = coupling.widths, coupling.costs.macs(coupling.widths)
    saved = {name: whole - coupling.costs.macs(widths - np.eye(len(widths), dtype=int)[place])
             for place, name in enumerate(coupling.costs.groups) if name in priced.groups}
    average = sum(saved[n] * coupling.groups[n].size for n in saved) / sum(coupling.groups[n].size for n in saved)
    for name, factors in ratio.items():
        assert factors == pytest.approx(np.full(len(factors), saved[name] / average))
    with pytest.raises(fxprune.InputError, match="cost_weighting must be 'macs', 'params' or None, got 'flops'"):
        DWGL(coupling, cost_weighting="flops")
