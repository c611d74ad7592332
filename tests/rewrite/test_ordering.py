"""An ordered copy computes the same function, on many architectures; what cannot be ordered stays, with a reason."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from fxprune import analyze
from fxprune.errors import InputError
from fxprune.models import resnet20
from fxprune.rewrite.ordering import BY, ROUNDED, TOLERANCE, order

VISION = torchvision.models


def vit():
    return VISION.VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64,
                                    num_classes=10)


def swin():
    return VISION.SwinTransformer(patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4],
                                  num_classes=10)


def convnext():
    block = VISION.convnext.CNBlockConfig
    return VISION.ConvNeXt([block(24, 48, 1), block(48, None, 1)], num_classes=10)


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(6, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0])


class Shuffle(nn.Module):
    """Grouped convolutions, group norm, a pixel shuffle, a flip and a concatenation with itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.norm, self.c = nn.GroupNorm(4, 16), nn.Conv2d(32, 8, 1)
        self.d = nn.Conv2d(2, 3, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.b(self.a(x))))
        x = torch.cat([x, x.flip(1)], 1)
        return self.d(nn.functional.pixel_shuffle(torch.relu(self.c(x)), 2))


ZOO = {
    "resnet20": (resnet20, 32), "resnet20-A": (lambda: resnet20(shortcut="A"), 32),
    "resnet18": (lambda: VISION.resnet18(num_classes=10), 64),
    "densenet121": (lambda: VISION.densenet121(num_classes=10), 64),
    "mobilenet_v2": (lambda: VISION.mobilenet_v2(num_classes=10), 64),
    "shufflenet": (lambda: VISION.shufflenet_v2_x0_5(num_classes=10), 64),
    "squeezenet": (lambda: VISION.squeezenet1_1(num_classes=10), 64),
    "regnet": (lambda: VISION.regnet_x_400mf(num_classes=10), 64),
    "efficientnet": (lambda: VISION.efficientnet_b0(num_classes=10), 64),
    "vit": (vit, 32), "swin": (swin, 64), "convnext": (convnext, 64), "shuffle": (Shuffle, 8),
}


def randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():
        # Some heads begin at zero, and would hide what reaches them.
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-6 * b.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("name", ZOO)
def test_the_copy_computes_the_same(name):
    make, size = ZOO[name]
    torch.manual_seed(0)
    model = randomised(make())
    x = torch.randn(2, 3, size, size)
    coupling = analyze(model, x)
    before = copy.deepcopy(model.state_dict())
    ordered, permutation = order(model, coupling)
    with torch.no_grad():
        assert close(ordered.double()(x.double()), copy.deepcopy(model).double()(x.double()))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert set(permutation.groups) == set(coupling.prunable), permutation.report()
    assert any((p != np.arange(len(p))).any() for p in permutation.groups.values())


class AsksForFloat32(nn.Module):
    """Cannot run in double precision, and rounding adds up over its turns, as in RAFT."""

    def __init__(self):
        super().__init__()
        self.wide, self.back = nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x):
        x = x.float()
        for _ in range(16):
            x = x + torch.sin(6 * self.back(torch.relu(self.wide(x))))
        return x


def test_rounding_is_no_fault():
    torch.manual_seed(0)
    model, x = AsksForFloat32(), torch.randn(4, 8)
    ordered, _ = order(model, analyze(model, x))
    error = (model(x) - ordered(x)).abs().max() / model(x).abs().max()
    assert TOLERANCE < error < ROUNDED


def test_training_mode_computes_the_same():
    torch.manual_seed(0)
    model = randomised(resnet20())
    ordered, _ = order(model, analyze(model, torch.zeros(2, 3, 32, 32)))
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert close(ordered.double().train()(x), copy.deepcopy(model).double().train()(x))


def test_recurrent_layers():
    torch.manual_seed(0)
    model = Lstm()
    x = torch.randn(2, 5, 6)
    ordered, _ = order(model, analyze(model, x))
    assert close(ordered(x), model(x))


@pytest.mark.parametrize("by", BY)
def test_scores_decrease(by):
    torch.manual_seed(0)
    model = randomised(resnet20())
    coupling = analyze(model, torch.zeros(1, 3, 32, 32))
    data = [(torch.randn(4, 3, 32, 32), torch.zeros(4)) for _ in range(2)]
    ordered, permutation = order(model, coupling, by, data)
    for name, p in permutation.groups.items():
        assert (np.diff(permutation.scores[name][p]) <= 0).all()
        assert sorted(p) == list(range(len(p)))
    again, second = order(ordered, coupling, by, data)
    assert all((p == np.arange(len(p))).all() for p in second.groups.values()), "ordered already"
    assert all(torch.equal(a, b) for a, b in zip(ordered.parameters(), again.parameters(), strict=True))


def test_the_strongest_filter_comes_first_in_all_members():
    torch.manual_seed(0)
    model = randomised(resnet20())
    coupling = analyze(model, torch.zeros(1, 3, 32, 32))
    ordered, permutation = order(model, coupling)
    p = torch.from_numpy(permutation["layer1.0.conv1"])
    old, new = model.layer1[0], ordered.layer1[0]
    assert torch.equal(new.bn1.running_var, old.bn1.running_var[p])
    # The same places are reached from both sides: the input channels are ordered by the stage's own permutation.
    stage = torch.from_numpy(permutation["conv1"])
    assert torch.equal(new.conv1.weight, old.conv1.weight[p][:, stage])
    assert torch.equal(new.conv2.weight, old.conv2.weight[stage][:, p])


def test_activations_are_those_behind_the_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, 5.0, 3.0, 2.0, 6.0, 4.0]))
        model[0].weight[1] *= 0.01
    model[1].momentum = None
    model.train()(torch.randn(64, 3, 8, 8))
    coupling = analyze(model, torch.zeros(1, 3, 8, 8))
    _, permutation = order(model, coupling, "activation", torch.randn(64, 3, 8, 8))
    # Batch norm undoes the filters' scale, all but the first group's tiny variance against eps.
    assert permutation["0"].tolist()[:1] == [4] and permutation["0"].tolist()[-1] == 0


class Crossed(nn.Module):
    """Ties {0, 3} and {1, 2} within one tensor, then meets them as 0, 3, 2, 1: unlike orders."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.a(x)
        return self.b(x + x.flip(1)) + self.c(x[:, [0, 3, 2, 1]])


def test_a_group_that_cannot_be_ordered_stays_and_says_so():
    torch.manual_seed(0)
    model = Crossed()
    x = torch.randn(1, 3, 4, 4)
    ordered, permutation = order(model, analyze(model, x))
    assert not permutation.groups and "unlike orders" in permutation.report()
    assert close(ordered(x), model(x))


def test_shared_weights_move_once():
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(5, 3)
    ordered, permutation = order(model, analyze(model, x))
    assert permutation.groups and close(ordered(x), model(x)) and ordered[2].weight is ordered[4].weight


@pytest.mark.parametrize(("call", "words"), [
    (lambda m, c: order(m, c, by="l3"), "unknown order 'l3'; did you mean 'l1', 'l2'"),
    (lambda m, c: order(m, c, by="activation"), "needs data to run the model on"),
    (lambda m, c: order(m, c, by="activation", data=[]), "at least one batch"),
    (lambda m, c: order(nn.Linear(2, 2), c), "the coupling must come from this model"),
    (lambda m, c: order(c, m), "order takes a module and its coupling"),
])
def test_bad_input(call, words):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=words):
        call(model, analyze(model, torch.zeros(1, 3)))


def test_weights_that_are_not_finite():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    coupling = analyze(model, torch.zeros(1, 3))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    for by in ("l2", "activation"):
        with pytest.raises(InputError, match="must be finite"):
            order(model, coupling, by, torch.ones(2, 3))
