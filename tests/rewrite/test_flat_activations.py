"""Outputs that an activation makes equal need not be met: by hand, and in nets."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.contractions import weighted
from fxprune.planning.moments import Moments
from fxprune.rewrite import layer_moments, recovery
from fxprune.rewrite.flat_activations import Behind, Shown
from fxprune.rewrite.least_squares import refitted


def behind(low=0.0, high=torch.inf, scale=1.0, shift=0.0):
    return Behind(low, high, torch.full((1, 1, 1), scale).double(), torch.full((1, 1, 1), shift).double())


@pytest.mark.parametrize("scale", [2.0, -2.0])
def test_targets_in_both_flat_parts(scale):
    """z = ±2y + 1 into a clamp to [0, 6]: the same part, the other side, and neither."""
    clamp = behind(0.0, 6.0, scale, 1.0)
    z_wanted, z_now = (torch.tensor(z).double().view(1, -1, 1) for z in
                       ([-3.0, -3.0, -3.0, 9.0, 9.0, 2.0, 0.0], [-5.0, 4.0, 8.0, 7.0, 1.0, -4.0, -1.0]))
    found = clamp.target((z_wanted - 1) / scale, z_wanted, z_now) * scale + 1
    assert torch.allclose(found.flatten(), torch.tensor([-5.0, 0.0, 0.0, 7.0, 6.0, 2.0, -1.0]).double())


def test_a_channel_that_hardly_reaches_the_activation_keeps_its_targets():
    wanted, now = torch.tensor([[[-3.0]]]), torch.tensor([[[5.0]]])
    faint = behind(scale=1e-9)
    assert torch.equal(faint.target(wanted, faint.reached(wanted), faint.reached(now)), wanted)


def test_rounds_show_less_error_than_least_squares():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 500, 3, generator=generator).double()
    y = (torch.randn(1, 500, 2, generator=generator) + x[:, :, :2]).double()
    moments, cut = Moments.of(x, y), (torch.zeros(1, 3, 2).double(), torch.zeros(1, 2).double())
    layer, errors = refitted(moments, *cut, True, 1e-9), []
    for _ in range(4):
        shown = Shown.of(x, y, behind(), [cut, layer])
        outputs = x @ layer[0] + layer[1].unsqueeze(1)
        assert float(shown.errors[1]) == pytest.approx(float((torch.relu(y) - torch.relu(outputs)).square().sum()))
        errors.append(float(shown.errors[1]))
        target = torch.where((y <= 0) & (outputs <= 0), outputs, y.clamp(min=0))
        rows = torch.cat([x, torch.ones_like(x[:, :, :1])], 2)[0]
        layer = refitted(shown.aimed(moments), *cut, True, 1e-12)
        by_hand = torch.linalg.lstsq(rows, target[0]).solution
        assert torch.allclose(torch.cat([layer[0][0], layer[1]]), by_hand, atol=1e-6)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.93 * errors[0]


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.second, self.act = nn.Conv2d(12, 12, 3, padding=1, bias=False), act
        self.after, self.head = nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(self.act(x + self.after(self.second(x))))


@pytest.mark.parametrize(("act", "flat"), [
    (nn.ReLU(), (0, torch.inf)), (nn.ReLU(inplace=True), (0, torch.inf)), (nn.ReLU6(), (0, 6)),
    (nn.Hardtanh(-2, 3), (-2, 3)), (nn.Hardtanh(), (-1, 1)), (nn.Hardsigmoid(), (-3, 3)),
    (nn.Hardswish(), None), (nn.GELU(), None), (nn.Identity(), None)])
def test_where_an_activation_behind_a_sum_is_flat(act, flat):
    found = weighted(Net(act).eval(), ((torch.randn(1, 3, 6, 6),), {})).contractions
    assert [contraction.flat for contraction in found] == [(0, torch.inf), flat, None]


def test_a_scale_or_a_second_reader_in_between_is_no_threshold():
    class Scaled(Net):
        def __init__(self):
            super().__init__(nn.ReLU())
            self.scale = nn.Parameter(torch.ones(12, 1, 1))

        def forward(self, x):
            y = self.norm(self.first(x)) * self.scale
            z = self.second(torch.relu(y))
            return self.head(torch.relu(z) + z)

    found = weighted(Scaled().eval(), ((torch.randn(1, 3, 6, 6),), {})).contractions
    assert [contraction.flat for contraction in found] == [None, None, None]


class OverTime(nn.Module):
    """A batch norm over another dimension than that of the channels."""

    def __init__(self, steps, width):
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, width)
        self.norm, self.head = nn.BatchNorm1d(steps), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.second(torch.relu(self.first(x))))))


class Gated(nn.Module):
    """A sum that broadcasts."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.second, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        gate = self.gate(x).mean((2, 3), keepdim=True)
        return self.head(torch.relu(gate + self.second(torch.relu(self.first(x)))))


@pytest.mark.parametrize(("build", "shape"), [
    (lambda: OverTime(5, 8), (16, 5, 6)), (lambda: OverTime(8, 8), (16, 8, 6)), (Gated, (8, 3, 8, 8))])
def test_what_is_not_of_the_channels_in_between_is_no_threshold(build, shape):
    torch.manual_seed(0)
    model, data = build().train(), [torch.randn(shape) for _ in range(6)]
    for x in data:
        model(x)
    model.eval()
    plan = fxprune.plan(fxprune.analyze(model, data[0]), model, channels=0.5)
    cut, small = (fxprune.apply(model, plan, recover=recover, data=data) for recover in (None, "least_squares"))
    new = torch.randn(shape)
    with torch.no_grad():
        before, after = ((net(new) - model(new)).square().mean() for net in (cut, small))
    assert after < 0.7 * before


def test_rows_beyond_what_may_be_kept_leave_the_plain_solution(monkeypatch):
    torch.manual_seed(0)
    model, data = Net(nn.ReLU()).eval(), [torch.randn(8, 3, 8, 8) for _ in range(3)]
    plan = fxprune.plan(fxprune.analyze(model, data[0]), model, widths={"first": 6})

    def recovered():
        small = fxprune.apply(model, plan, recover="least_squares", data=data, form="module")
        return small.second.weight.detach()

    rounds = recovered()
    monkeypatch.setattr(recovery, "shown", lambda samples, tried: None)
    plain = recovered()
    monkeypatch.undo()
    monkeypatch.setattr(layer_moments, "KEPT", 0)
    assert torch.equal(recovered(), plain) and not torch.equal(rounds, plain)


LOW = {nn.ReLU: -1.0, nn.ReLU6: -1.0}


@pytest.mark.parametrize("act", [kind() for kind in LOW])
def test_what_is_shown_comes_nearer_than_by_least_squares(act, monkeypatch):
    torch.manual_seed(0)
    model, data = Net(act).eval(), [torch.randn(32, 3, 8, 8) for _ in range(4)]
    model.train()
    for x in data * 10:  # batch norms as training leaves them
        model(x)
    model.eval().after.bias.data.fill_(LOW[type(act)])  # most of what reaches the activation lies below
    new = torch.randn(64, 3, 8, 8)
    plan = fxprune.plan(fxprune.analyze(model, new[:1]), model, widths={"first": 6})
    wanted = model.act(features(model, new))

    left = []

    def recovered():
        small = fxprune.apply(model, plan, recover="least_squares", data=data, form="module")
        layer = next(found for found in fxprune.record(small).recovery.layers if found.layer == "second.weight")
        kept = list(fxprune.record(small).plan.keep["second.weight"][0])
        left.append(torch.equal(small.after.running_var, model.after.running_var[kept]))
        error = (small.act(features(small, new)) - wanted[:, kept]).square().mean()
        return layer, float(error)

    layer, error = recovered()
    assert left.pop()  # what reaches the norm need not have the original's moments any more
    monkeypatch.setattr(recovery, "ROUNDS", 0)
    linear, before = recovered()
    assert not left.pop()
    assert layer.taken and layer.before == linear.before
    assert layer.after < 0.98 * linear.after and error < 0.99 * before


@torch.no_grad()
def features(model, x):
    x = torch.relu(model.norm(model.first(x)))
    return x + model.after(model.second(x))
