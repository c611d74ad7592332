"""A penalty towards a target ends there, whatever the optimizer and the net, with the same arguments."""

import logging
import warnings

import numpy as np
import pytest
import torch
import torchvision
from penalty_nets import residual
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import DWGL, analyze
from fxprune.errors import BudgetError, InputError
from fxprune.ir.costs import Costs, Count
from fxprune.models import resnet20
from fxprune.training.guidance import Towards, remaining


class Attention(nn.Module):
    """A gate on what a U-Net hands across, as in Attention U-Net (Oktay 2018)."""

    def __init__(self, n):
        super().__init__()
        self.here, self.above, self.out = nn.Conv2d(n, 6, 1), nn.Conv2d(n, 6, 1), nn.Conv2d(6, 1, 1)
        self.scale, self.fc = nn.Conv2d(n, n, 1), nn.BatchNorm2d(n)

    def forward(self, x, g):
        x = x * torch.sigmoid(self.out(torch.relu(self.here(x) + self.above(g))))
        return self.fc(x) * torch.sigmoid(self.scale(g.mean((2, 3), keepdim=True)))


class UNet(nn.Module):
    def __init__(self, n=12):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(n, 2 * n, 3, padding=1), nn.BatchNorm2d(2 * n), nn.ReLU())
        self.up, self.gate = nn.ConvTranspose2d(2 * n, n, 2, 2), Attention(n)
        self.last, self.head = nn.Conv2d(2 * n, n, 3, padding=1), nn.Conv2d(n, 10, 1)

    def forward(self, x):
        a = self.down(x)
        g = self.up(self.deep(F.max_pool2d(a, 2)))
        return self.head(torch.relu(self.last(torch.cat([g, self.gate(a, g)], 1)))).mean((2, 3))


def vit():
    return torchvision.models.VisionTransformer(image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24,
                                                mlp_dim=48, num_classes=10)


def mobilenet():
    return torchvision.models.MobileNetV2(num_classes=10, width_mult=0.25)


NETS = {"residual": residual, "resnet20": resnet20, "mobilenet_v2": mobilenet, "unet": UNet, "vit": vit}
OPTIMIZERS = {"sgd 0.1": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
              "adamw 1e-3": lambda p: torch.optim.AdamW(p, 1e-3)}


def train(model, optimizer, steps, after, seed=1):
    """Images whose class is a colour and a direction; learnable, and never quite learnt."""
    draw = torch.Generator().manual_seed(seed)
    classes = next(m.out_features for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)) \
        if not isinstance(model, UNet) else 10
    for _ in range(steps):
        y = torch.randint(0, classes, (8,), generator=draw)
        x = torch.randn(8, 3, 16, 16, generator=draw) + y.view(-1, 1, 1, 1) / classes
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        after()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_ends_at_the_target(name, optimizer, caplog):
    torch.manual_seed(0)
    model = NETS[name]().train()
    coupling = analyze(model, torch.zeros(2, 3, 16, 16))
    model, _ = fxprune.order(model, coupling)
    dwgl = DWGL.towards(coupling, macs=0.5, steps=20)
    with caplog.at_level(logging.INFO, "fxprune"):
        train(model, OPTIMIZERS[optimizer](model.parameters()), 25, lambda: dwgl.step(model))
    kept = dwgl.votes(model).fraction("intersection")
    # Not below either, but for the granularity of a channel.
    assert 0.5 - 0.08 <= kept <= 0.5 and dwgl.progress.kept == pytest.approx(kept)
    assert dwgl.line.startswith(f"target 50.0% of the macs, reached {kept:.1%}, strength 0, step 25, released")
    assert len(caplog.records) > 5 and "strength" in caplog.records[3].message


def test_what_was_given_up_stays_so_and_the_rest_is_free():
    model = residual()
    dwgl = DWGL.towards(analyze(model, torch.zeros(2, 3, 16, 16)), params=0.6, steps=10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimizer, 10, lambda: dwgl.step(model))
    gone = {name: votes.given_up.all(0) for name, votes in dwgl.votes(model, 1e-12).ballots.items()}
    assert dwgl.progress.released and any(mask.any() for mask in gone.values())
    before = model.stem.weight.clone()
    train(model, optimizer, 5, lambda: dwgl.step(model), seed=2)
    assert all((dwgl.votes(model, 1e-12)[name].given_up.all(0) == mask).all() for name, mask in gone.items())
    free = torch.from_numpy(~gone["stem"])
    assert not torch.equal(model.stem.weight[free], before[free]) and not model.stem.weight[~free].any()


def test_proximal_and_step_are_one_step_alone():
    ends = []
    for both in (False, True):
        model = residual()
        dwgl = DWGL.towards(analyze(model, torch.zeros(2, 3, 16, 16)), steps=10)
        for _ in range(6):
            if both:
                dwgl.proximal_(model, 0.3)
            dwgl.step(model)
        ends.append((model.state_dict(), dwgl.progress))
        assert dwgl.penalty == pytest.approx(dwgl.progress.length / (0.3 if both else 1.0))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][0].values(), ends[1][0].values(), strict=True))


@pytest.mark.parametrize("at", [4, 12])
def test_resumed_with_the_same_bits(at):
    coupling, states = analyze(residual(), torch.zeros(2, 3, 16, 16)), []
    for cut in (None, at):
        model, dwgl = residual(), DWGL.towards(coupling, steps=10)
        for step in range(15):
            if step == cut:
                state, dwgl = dwgl.state_dict(), DWGL.towards(coupling, steps=10)
                dwgl.load_state_dict(state)
            train(model, torch.optim.SGD(model.parameters(), 0.05), 1, lambda: dwgl.step(model), seed=step)  # noqa: B023
        states.append((model.state_dict(), dwgl.state_dict()))
    assert states[0][1] == states[1][1]
    assert all(torch.equal(a, b) for a, b in zip(states[0][0].values(), states[1][0].values(), strict=True))


def test_the_length_is_the_distance_over_the_steps_left():
    class Fixed:
        def distance(self, until, cost):
            assert (until, cost) == (0.5, "params")
            return 0.9, 3.0

    schedule = Towards(0.5, 101, "params")
    now = schedule.advance(schedule.start(), Fixed())
    assert (now.length, now.due, now.kept) == (0.03, 6, 0.9)
    assert schedule.advance(now, None).length == 0.03, "not counted before it is due"


def test_the_distance_is_the_shortest_at_which_the_target_is_met():
    one = Count(np.array([9]), np.array([[1, 2]]), np.array([1, 0, 0]), np.array([1, 2]), np.array([0, 1]),
                np.array([1, 1]))
    costs, widths = Costs(("a", "b"), one, one), np.array([4, 4])
    times = {"a": np.array([np.inf, 3.0, 2.0, 1.0]), "b": np.array([np.inf, 9.0, 0.5, 0.0])}
    assert remaining(times, costs, widths, 6 / 16, "macs") == (12 / 16, 1.0)  # 3 · 2
    assert remaining(times, costs, widths, 5 / 16, "macs") == (12 / 16, 2.0)  # 2 · 2
    assert remaining(times, costs, widths, 0.05, "macs") == (12 / 16, np.inf)


def test_compress_presses_towards_its_own_budget():
    lines = []

    def fit(model, penalty):
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        penalty.within(10)
        train(model, optimizer, 12, lambda: penalty.step(model))
        lines.append(penalty.line)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = fxprune.compress(residual(), torch.zeros(2, 3, 16, 16), params=0.6, train=fit,
                                 groups=["stem", "one.conv1"])
    assert lines[0].startswith("target 60.0% of the params, reached") and "released" in lines[0]
    assert fxprune.record(small).after.widths["two.conv1"] == 6


def test_a_training_that_stops_too_early_is_named():
    def fit(model, penalty):
        penalty.within(20)
        for _ in range(18):
            penalty.step(model)

    with pytest.warns(UserWarning, match=r"the budget removes \d+ channels, \d+ of them beyond what all voters gave "
                                         r"up: .*'stem' \d+ \(of \d+ given up\).*DWGL.towards"):
        fxprune.compress(residual(), torch.zeros(2, 3, 16, 16), macs=0.3, train=fit, verify=False)


def test_a_plan_beyond_its_votes_says_so():
    model = residual()
    coupling = analyze(model, torch.zeros(2, 3, 8, 8))
    with torch.no_grad():
        model.one.conv1.weight[4:] = 0
    with pytest.warns(UserWarning, match=r"macs=0.5 removes .* The votes alone keep macs=0\.\d+: ask for that"):
        fxprune.plan(coupling, model, macs=0.5, vote="intersection")
    votes = DWGL(coupling).votes(model)
    assert votes.beyond({"one.conv1": [0, 1]}) == {"one.conv1": 2}
    assert votes.beyond({"one.conv1": [0, 1, 2, 3]}) == {}


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"macs": 1.5}, BudgetError, r"macs must be the fraction to be kept, in \(0, 1\), got 1.5; write DWGL.towards"),
    ({"macs": 0.5, "params": 0.5}, BudgetError, "macs= or params= must be given, not both"),
    ({"macs": 0.001}, BudgetError, r"macs=0.001 cannot be reached: with one channel left in each of 3 groups, 0\.0"),
    ({"steps": 3}, InputError, "steps must be a number of updates >= 10, got 3"),
    ({"strength": 0.1}, InputError, "DWGL.towards finds strength and schedule itself"),
    ({"direction": (1, 4)}, InputError, r"direction begins with 0, got \(1, 4\); write direction=\(0, 4\)"),
])
def test_bad_arguments(coupling, arguments, error, words):
    with pytest.raises(error, match=words):
        DWGL.towards(coupling, **arguments)


def test_bad_calls(coupling, model):
    with pytest.raises(InputError, match="within is for a penalty towards a target, and this one has Constant"):
        DWGL(coupling).within(100)
    dwgl = DWGL.towards(coupling, steps=10)
    with pytest.raises(InputError, match=r"counts the votes, and so needs the model; write dwgl.step\(model\)"):
        dwgl.step()
    for _ in range(12):
        dwgl.step(model)
    with pytest.raises(InputError, match="steps must be more than the 12 that were made, got 11"):
        dwgl.within(11)
