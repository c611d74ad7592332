"""Criteria that read data, against direct computations: finite differences, histograms, solving again."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxprune
from fxprune.errors import InputError
from fxprune.planning.criteria import APoZ, Entropy, reconstruction
from fxprune.planning.criteria.reconstruction import lasso_path, removal_costs

X = torch.randn(60, 3, 5, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(60) % 4


class Net(nn.Module):
    """A stream with a branch; its channels are read by a convolution, a linear layer and the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.fc((x + self.branch(x)).relu().mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double().eval()


def batches(labels: bool = False) -> list:
    x = X.double().split(20)
    return list(zip(x, LABELS.split(20), strict=True)) if labels else list(x)


def scores(net: nn.Module, criterion, **kwargs) -> np.ndarray:
    coupling = fxprune.analyze(net, X[:1].double())
    return fxprune.score(coupling, net, criterion, kwargs.pop("data", batches()), **kwargs)["stem"]


def gated(net: nn.Module, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The net with a gate on the stream wherever it is read."""
    stem = net.stem(x).relu() * gate.view(-1, 1, 1)
    branch = F.conv2d(stem, net.branch.weight, net.branch.bias, padding=1)
    stream = (net.stem(x).relu() + branch).relu() * gate.view(-1, 1, 1)
    return net.fc(stream.mean((2, 3)))


def test_taylor_is_the_squared_difference_quotient_of_a_gate(net):
    expected = np.zeros(6)
    for x, y in batches(labels=True):
        for channel in range(6):
            step = torch.zeros(6, dtype=torch.float64)
            step[channel] = 1e-6
            up, down = (F.cross_entropy(gated(net, x, 1 + sign * step), y).item() for sign in (1, -1))
            expected[channel] += ((up - down) / 2e-6) ** 2 / 3
    np.testing.assert_allclose(scores(net, "taylor", data=batches(labels=True)), expected[None], rtol=1e-4)


def test_taylor_takes_a_loss_and_the_outputs_own(net):
    def mean(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x):
            out = self.net(x)
            return {"loss": out.square().mean(), "logits": out}

    given = scores(net, "taylor", loss=mean)
    own = fxprune.score(fxprune.analyze(Own(), X[:1].double()), Own(), "taylor", batches())["net.stem"]
    np.testing.assert_allclose(given, own)
    assert not np.allclose(given, scores(net, "taylor"))


def test_taylor_without_labels_is_the_squared_change_of_the_outputs(net):
    """On average over random signs: the squared derivatives of all outputs along the gate."""
    gate = torch.ones(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda g: gated(net, X.double(), g), gate)
    expected = jacobian.square().sum((0, 1)).numpy()
    found = np.mean([scores(net, "taylor", data=[X.double()] * 200, samples=None)[0]], axis=0)
    np.testing.assert_allclose(found, expected, rtol=0.35)
    assert np.corrcoef(found, expected)[0, 1] > 0.95


def test_hessian_of_a_square_is_exact():
    """½w²h of a linear readout under ½‖·‖²: Hutchinson's estimate of a diagonal Hessian has no variance."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)).double()
    x = torch.eye(3, dtype=torch.float64)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        # Every weight of the readout stands alone in its square.
        return 0.5 * (model[2].weight.square() * torch.arange(1.0, 6.0)).sum() + 0 * model(batch).sum()

    coupling = fxprune.analyze(net, x)
    found = fxprune.score(coupling, net, "hessian", [x], loss=loss)["0"]
    expected = 0.5 * (net[2].weight.detach().square() * torch.arange(1.0, 6.0)).sum(0)
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-9)


def hidden(net: nn.Module) -> list[torch.Tensor]:
    """What the branch and the linear layer read."""
    stem = net.stem(X.double()).relu()
    return [stem, (stem + net.branch(stem)).relu().mean((2, 3))]


def test_activation_apoz_fluctuation_and_wanda_by_hand(net):
    pooled, weight = hidden(net)[1].detach(), net.fc.weight.detach()
    for criterion, expected in {
        "activation": pooled.abs().mean(0), "apoz": (pooled != 0).double().mean(0),
        "fluctuation": pooled.var(0, correction=0) * weight.square().sum(0),
        "wanda": pooled.square().mean(0).sqrt() * weight.abs().sum(0),
    }.items():
        np.testing.assert_allclose(scores(net, criterion)[1], expected.numpy(), rtol=1e-5, err_msg=criterion)


def test_a_padded_convolution_reads_its_zeros_too(net):
    patches = F.unfold(hidden(net)[0], 3, padding=1).unflatten(1, (6, 9))
    expected = (patches != 0).double().mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(scores(net, APoZ())[0], expected, rtol=1e-9)


def test_entropy_is_that_of_the_histogram(net):
    pooled = hidden(net)[1].detach().float().numpy()
    expected = []
    for column in pooled.T:
        counts = np.histogram(column, bins=7)[0] / 60
        expected.append(-sum(p * np.log(p) for p in counts if p))
    np.testing.assert_allclose(scores(net, Entropy(bins=7))[1], expected, rtol=1e-6)


def test_obs_is_the_error_of_solving_again(monkeypatch):
    """Cost by cost: the least squares on the inputs that are left, against the layer's own outputs."""
    monkeypatch.setattr(reconstruction, "DAMPING", 1e-12)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 6, generator=generator, dtype=torch.float64) @ \
        torch.randn(6, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    channel = np.array([[0, 0, 1, 1, 2, -1]])
    order, costs = removal_costs((rows.T @ rows / 200)[None], weight[None], channel, 3)
    gone: list[int] = []
    before = worst = 0.0
    for channel_gone in order:
        gone += np.flatnonzero(channel[0] == channel_gone).tolist()
        left = [k for k in range(6) if k not in gone]
        again = torch.linalg.lstsq(rows[:, left], rows @ weight).solution
        error = float((rows @ weight - rows[:, left] @ again).square().sum()) / 200
        worst, before = max(worst, error - before), error
        assert costs[channel_gone] == pytest.approx(worst, rel=1e-6)
    assert sorted(order) == [0, 1, 2]


def test_lasso_path_of_independent_inputs():
    """Without correlations, β_j = max(0, 1 − α/q_j): a coefficient enters as α falls below q_j."""
    entered = lasso_path(np.diag([4.0, 1.0, 0.25]), 40)
    assert (entered <= [4.0, 1.0, 0.25]).all() and (entered >= [3.2, 0.8, 0.2]).all()


def test_lasso_prefers_one_of_two_alike(net):
    with torch.no_grad():
        net.fc.weight[:, 1] = 0
    assert scores(net, "lasso")[1, 1] == 0


def test_packed_projections_and_groups_have_statistics():
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True).eval()
    x = torch.randn(4, 5, 16)
    coupling = fxprune.analyze(attention, x)
    with pytest.warns(UserWarning, match="'fluctuation' has no statistic of 'self_attn.in_proj_weight'"):
        found = fxprune.score(coupling, attention, "fluctuation", [x])
    # Queries meet keys, and no weight; what values become is read by the output projection.
    assert found.keys() == coupling.prunable.keys() - {"self_attn.in_proj_weight"} and len(found) > 1
    assert all(len(rows) and (rows > 0).all() for rows in found.values())
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(),
                            nn.Conv2d(8, 2, 1)).eval()
    found = fxprune.score(fxprune.analyze(grouped, X), grouped, "fluctuation", [X])
    name = next(iter(found))
    with torch.no_grad():
        patches = F.unfold(grouped[:2](X), 3).unflatten(1, (2, 4, 9)).var((0, 3), correction=0)
    weight = grouped[2].weight.detach().view(2, 4, 4, 9).square().sum(1)
    expected = (patches * weight).sum((0, 2)).numpy()
    np.testing.assert_allclose(found[name][0], expected, rtol=1e-3)


@pytest.mark.parametrize(("criterion", "kwargs", "text"), [
    ("taylor", {"data": None}, "criterion 'taylor' reads data, and none was given; pass data=batches"),
    ("wanda", {"data": []}, "at least one batch"),
    ("taylor", {"loss": lambda model, batch: model(batch)}, "must be a scalar tensor, got a tensor of shape"),
    ("taylor", {"loss": lambda model, batch: 3.0}, "must be a scalar tensor, got float"),
    ("taylor", {"loss": lambda model, batch: model(batch).detach().sum()}, "must have a gradient"),
    ("taylor", {"loss": lambda model, batch: model(batch).sum() * float("inf")}, "must be finite, got"),
    ("taylor", {"loss": 3}, "loss must be called as"),
    ("taylor", {"data": [torch.randn(2, 7, 5, 5)]}, "raised RuntimeError on batch 0"),
    ("entropy", {"samples": -1}, "samples must be an integer"),
])
def test_bad_input(net, criterion, kwargs, text):
    with pytest.raises(InputError, match=text):
        scores(net, criterion, **kwargs)


def test_a_loss_without_data(net):
    with pytest.raises(InputError, match="computed on data, and none was given"):
        fxprune.plan(fxprune.analyze(net, X[:1].double()), net, loss=lambda model, batch: 0)


def test_bins():
    with pytest.raises(InputError, match="bins must be an integer >= 2"):
        Entropy(bins=1)


def test_no_more_samples_are_read_than_asked_for(net):
    read = []

    def endless():
        while True:
            read.append(1)
            yield X.double()[:20]

    scores(net, "activation", data=endless(), samples=50)
    assert len(read) <= 4


def test_auto_says_what_it_took(net):
    coupling = fxprune.analyze(net, X[:1].double())
    with_data = fxprune.plan(coupling, net, macs=0.5, criterion="auto", data=batches()).options
    assert (with_data["criterion"], with_data["scope"], with_data["per"]) == ("auto: taylor", "absolute", "macs")
    without = fxprune.plan(coupling, net, macs=0.5, criterion="auto").options
    assert (without["criterion"], without["scope"]) == ("auto: l2", "global") and "per" not in without
    normed = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    drawn = fxprune.plan(fxprune.analyze(normed, X), normed, criterion="auto")
    assert drawn.options["criterion"] == "auto: expected"
    assert fxprune.Plan.from_widths(coupling, net, {"stem": 4}).widths == {"stem": 4}
