"""The optimizer of the pruned model: moments sliced as their parameters were, options kept, the original untouched."""

import copy

import pytest
import torch
from torch import nn

import fxprune.rewrite.optimizer
from fxprune import analyze
from fxprune.capture.model_walk import named_tensors
from fxprune.errors import InputError, PlanError
from fxprune.planning.draw import plan


class Net(nn.Module):
    """A conv, its norm, a linear layer with a tied copy, and a head that is never used."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.fc, self.tied = nn.Linear(width, 5), nn.Linear(width, 5)
        self.tied.weight = self.fc.weight
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.fc(x) + self.tied(x)


def setting(make, **options):
    torch.manual_seed(0)
    model = Net()
    optimizer = make(model.parameters(), **options)
    for _ in range(3):
        model(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    drawn = plan(analyze(model, torch.zeros(1, 3, 6, 6)), model, channels=0.5)
    small = Net(4)
    del small.unused
    for name, tensor in named_tensors(small):
        values = dict(named_tensors(model))[name].detach()
        for dim, kept in drawn.keep.get(name, {}).items():
            values = values.index_select(dim, torch.tensor(kept))
        tensor.detach().copy_(values)
    return model, optimizer, drawn, small


OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}), (torch.optim.AdamW, {"lr": 0.01}),
    (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    (torch.optim.Adagrad, {"lr": 0.1}), (torch.optim.NAdam, {"lr": 0.01}), (torch.optim.RAdam, {"lr": 0.01}),
    (torch.optim.Adamax, {"lr": 0.01}), (torch.optim.Adadelta, {"lr": 1.0}), (torch.optim.Rprop, {"lr": 0.01}),
    (torch.optim.ASGD, {"lr": 0.01}), (torch.optim.Adafactor, {"lr": 0.01}),
]


@pytest.mark.parametrize(("make", "options"), OPTIMIZERS, ids=lambda value: getattr(value, "__name__", ""))
def test_state_is_sliced_as_the_parameters_were(make, options):
    model, optimizer, drawn, small = setting(make, **options)
    before = copy.deepcopy(optimizer.state_dict())
    fresh = drawn.apply_to_optimizer(optimizer, model, small)
    assert type(fresh) is make
    ours, theirs = dict(model.named_parameters()), dict(small.named_parameters())
    for name, parameter in theirs.items():
        old, new = optimizer.state[ours[name]], fresh.state[parameter]
        assert set(old) == set(new)
        for key, value in old.items():
            if isinstance(value, torch.Tensor) and value.shape == ours[name].shape and value.dim():
                for dim, kept in drawn.keep.get(name, {}).items():
                    value = value.index_select(dim, torch.tensor(kept))
            if isinstance(value, torch.Tensor) and value.numel() and value.dim() and (1 not in value.shape):
                assert torch.equal(new[key], value), (name, key)
                assert new[key].data_ptr() != value.data_ptr() or not value.numel()
    for group, other in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}
        assert all(any(p is q for q in theirs.values()) for p in other["params"])
    after = optimizer.state_dict()
    assert str(before["param_groups"]) == str(after["param_groups"])
    small(torch.randn(4, 3, 6, 6)).square().mean().backward()
    fresh.step()


def test_a_step_of_the_small_equals_a_step_of_the_masked():
    model, optimizer, drawn, small = setting(torch.optim.Adam, lr=0.01)
    fresh = drawn.apply_to_optimizer(optimizer, model, small)
    gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name]
    for name, parameter in small.named_parameters():
        gradient = gradients[name]
        for dim, kept in drawn.keep.get(name, {}).items():
            gradient = gradient.index_select(dim, torch.tensor(kept))
        parameter.grad = gradient
    optimizer.step()
    fresh.step()
    for name, parameter in small.named_parameters():
        expected = dict(model.named_parameters())[name]
        for dim, kept in drawn.keep.get(name, {}).items():
            expected = expected.index_select(dim, torch.tensor(kept))
        torch.testing.assert_close(parameter, expected, rtol=0, atol=0)


def test_parameter_groups_and_names_stay():
    model, _, drawn, small = setting(torch.optim.SGD, lr=0.1)
    decay = [("conv.weight", model.conv.weight), ("fc.weight", model.fc.weight)]
    optimizer = torch.optim.SGD([
        {"params": decay, "weight_decay": 0.1, "lr": 0.5, "initial_lr": 0.5},
        {"params": [("bn.weight", model.bn.weight), ("bn.bias", model.bn.bias)], "weight_decay": 0.0},
        {"params": [("unused.weight", model.unused.weight)]}], lr=0.1)
    fresh = fxprune.rewrite.optimizer.sliced_optimizer(drawn, optimizer, model, small)
    assert [len(g["params"]) for g in fresh.param_groups] == [2, 2]
    assert [g["weight_decay"] for g in fresh.param_groups] == [0.1, 0.0]
    assert fresh.param_groups[0]["lr"] == fresh.param_groups[0]["initial_lr"] == 0.5
    assert fresh.param_groups[0]["param_names"] == ["conv.weight", "fc.weight"]
    assert fresh.param_groups[0]["params"][1] is small.fc.weight is small.tied.weight


def test_frozen_parameters_stay_out_and_schedulers_go_on():
    model, _, drawn, small = setting(torch.optim.SGD, lr=0.1)
    optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()
    fresh = drawn.apply_to_optimizer(optimizer, model, small)
    assert len(fresh.param_groups[0]["params"]) == 2 and not fresh.state
    later = torch.optim.lr_scheduler.StepLR(fresh, 1, last_epoch=scheduler.last_epoch)
    assert later.get_last_lr() == [pytest.approx(0.001)]


def test_bad_input():
    model, optimizer, drawn, small = setting(torch.optim.Adam, lr=0.1)
    with pytest.raises(InputError, match="must hold parameters of the model that was pruned"):
        drawn.apply_to_optimizer(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1), model, small)
    with pytest.raises(InputError, match="optimizer must be a torch.optim.Optimizer, got list"):
        drawn.apply_to_optimizer([], model, small)
    with pytest.raises(InputError, match="it has none of them"):
        drawn.apply_to_optimizer(optimizer, model, nn.Linear(2, 2, bias=False))
    with pytest.raises(PlanError, match="pass the model that this plan made"):
        drawn.apply_to_optimizer(optimizer, model, Net(5))


def test_an_optimizer_that_keeps_all_in_one_vector():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    drawn = plan(analyze(model, torch.zeros(1, 3)), model, channels=0.5)
    small = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(InputError, match="LBFGS"):
        drawn.apply_to_optimizer(optimizer, model, small)
