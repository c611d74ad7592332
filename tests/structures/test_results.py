"""What people do with a result: copy, pickle, save, export, trace, train, prune again."""

import copy
import io
import pickle

import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F

import fxprune


class Plain(nn.Module):
    """Non-persistent buffers, literal shapes, a frozen part, a norm that stays in inference mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 2)
        self.register_buffer("scale", torch.rand(8, 1, 1), persistent=False)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 5, 6, 4]))
        self.stem.weight.requires_grad_(False)

    def forward(self, x):
        y = self.norm(self.stem(x))[:, self.order] * self.scale
        b, c, h, w = y.shape
        y = self.body(y.reshape(b, c, h * w).view(b, 8, h, w))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Dual(Plain):
    """Training and inference differ."""

    def __init__(self):
        super().__init__()
        self.aux = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                y = self.norm(self.stem(x))
            return super().forward(x), self.aux(y)
        return super().forward(x)


def example(batch=2):
    return torch.randn(batch, 3, 6, 6)


@pytest.fixture(params=[Plain, Dual])
def model(request):
    torch.manual_seed(0)
    made = request.param()
    reference.randomise(made, 1)
    return made


@pytest.fixture
def small(model):
    return fxprune.compress(model, example(), channels=0.5)


def same(a, b):
    """The same outputs, keys, flags and record; nothing shared."""
    assert list(a.state_dict()) == list(b.state_dict())
    assert {n: m.training for n, m in a.named_modules()} == {n: m.training for n, m in b.named_modules()}
    assert [(n, p.requires_grad) for n, p in a.named_parameters()] == \
        [(n, p.requires_grad) for n, p in b.named_parameters()]
    assert not {t.data_ptr() for _, t in reference.tensors(a)} & {t.data_ptr() for _, t in reference.tensors(b)}
    assert fxprune.record(a).plan == fxprune.record(b).plan
    x = example(3)
    for mode in (True, False, True):
        a.train(mode), b.train(mode)
        reference.assert_close(copy.deepcopy(a)(x), copy.deepcopy(b)(x), f"training={mode}")
        assert a.code == b.code


def test_deepcopy(small):
    small.eval()
    small.body.train()
    same(copy.deepcopy(small), small)
    same(copy.deepcopy(copy.deepcopy(small)), small)


def test_pickle(small):
    again = pickle.loads(pickle.dumps(small))
    same(again, small)
    same(copy.deepcopy(pickle.loads(pickle.dumps(again))), small)
    assert fxprune.record(again).coupling.report() == fxprune.record(small).coupling.report()


def test_save_and_load(small):
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    same(torch.load(file, weights_only=False), small)


def test_state_dict(model, small):
    assert list(small.state_dict()) == [name for name in model.state_dict() if name in small.state_dict()]
    assert "scale" not in small.state_dict() and "order" in small.state_dict()
    other = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(small.state_dict(), strict=True)
    same(other, small)


def test_export(small):
    small.eval()
    x = example()
    exported = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.allclose(exported.module()(example(5)[:2]).shape and exported.module()(x), small(x), atol=1e-5)


def test_traced_again(small):
    small.eval()
    x = example()
    assert torch.allclose(torch.fx.symbolic_trace(small)(x), small(x))
    with torch.no_grad():
        assert torch.allclose(torch.jit.trace(small, x, check_trace=False)(x), small(x))


def test_pruned_again(small):
    torch.manual_seed(0)
    small.eval()
    again = fxprune.compress(small, example(), channels=0.5)
    assert again.stem.out_channels == 2 and again(example(3)).shape == (3, 2)


def test_trains(small):
    # A bias in front of a batch norm has no gradient.
    parameters = [p for n, p in small.named_parameters() if p.requires_grad and n != "stem.bias"]
    optimizer = torch.optim.SGD(parameters, 0.01)
    before = [p.clone() for p in parameters]
    for _ in range(2):
        out = small.train()(example())
        sum(t.square().sum() for t in reference.leaves(out)).backward()
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert small.stem.weight.grad is None


def test_modes_and_memory_format_stay(model):
    model = model.to(memory_format=torch.channels_last).train()
    model.norm.eval()
    small = fxprune.compress(model, example(), channels=0.5)
    assert small.training and not small.norm.training and small.body.training
    assert small.body.weight.is_contiguous(memory_format=torch.channels_last)
    assert fxprune.compress(model.eval(), example(), channels=0.5).training is False


def test_gradient_mode_is_left_as_it_was(small):
    small.train()(example())
    assert torch.is_grad_enabled()
    with torch.no_grad():
        small(example())
        assert not torch.is_grad_enabled()


def test_autocast_stays_where_it_was():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.a(x)
            assert y.dim() == 2
            return self.b(y.float()), y.mean()

    net, x = Mixed(), torch.randn(4, 3)
    small = fxprune.compress(net, x, channels=0.5, verify=False)
    for module in (small, pickle.loads(pickle.dumps(small))):
        assert module(x)[1].dtype == torch.bfloat16 and not torch.is_autocast_enabled("cpu")
