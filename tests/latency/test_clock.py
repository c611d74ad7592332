"""Measuring: what is recorded, who takes turns, what is left as it was, and what is refused. No test asserts a time."""

import copy

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import InputError


def net():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(16, 4, 3))


def test_the_setting_is_in_the_record():
    found = fxprune.measure(net().double(), torch.randn(5, 3, 8, 8).double(), repeats=4, warmup=0, threads=1)
    assert (found.repeats, found.threads, found.dtype, found.device, found.batch) == (4, 1, "float64", "cpu", 5)
    assert 0 < found.spread[0] <= found.median <= found.spread[1]
    assert "at batch 5, float64, cpu, threads: 1, repeats: 4" in str(found)
    with pytest.raises(AttributeError):
        found.median = 0


def test_integers_keywords_and_models_without_weights():
    class Two(nn.Module):
        def forward(self, ids, scale):
            return ids * scale

    found = fxprune.measure(Two(), {"ids": torch.ones(3, 2, dtype=torch.long), "scale": 2}, repeats=1, warmup=0)
    assert (found.batch, found.dtype, found.spread) == (3, "float32", (found.median, found.median))
    assert fxprune.measure(nn.Embedding(4, 2), torch.zeros(2, 3, dtype=torch.long), repeats=1, warmup=0).batch == 2


def test_models_are_left_as_they_were():
    model = net().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    threads = torch.get_num_threads()
    fxprune.measure(model, torch.randn(2, 3, 8, 8), repeats=2, warmup=1, threads=threads + 1)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.get_num_threads() == threads
    assert not model[0].weight.requires_grad and model[4].weight.grad is None


class Caching(nn.Module):
    """Keeps a table of its input's length, as rotary embeddings do."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(8, 8), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(len(x), dtype=x.dtype)[:, None].cos()
        return self.linear(x) * self.table


def test_what_a_model_caches_while_it_is_timed_can_be_trained_with():
    model = Caching()
    fxprune.measure(model, torch.randn(4, 8), repeats=1, warmup=0)
    model(torch.randn(4, 8)).sum().backward()
    assert model.linear.weight.grad.abs().sum() > 0


def test_modes_come_back_where_the_two_modes_have_graphs_of_their_own():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return self.head(x * 2 if self.training else x)

    small = fxprune.compress(Both().train(), torch.randn(1, 3, 8, 8), channels=0.5).train()
    graph = small.graph
    fxprune.measure(small, torch.randn(1, 3, 8, 8), repeats=1, warmup=0)
    assert small.training and small.graph is graph


def test_modes_and_threads_come_back_after_an_error():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    model, threads = Broken().train(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        fxprune.measure(model, torch.ones(1), threads=threads + 1)
    assert model.training and torch.get_num_threads() == threads


def test_models_take_turns():
    calls = []

    class Named(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            assert not self.training and not torch.is_grad_enabled()
            calls.append(self.name)

    found = fxprune.compare(Named("a"), Named("b"), torch.ones(2), repeats=3, warmup=2)
    assert "".join(calls) == "ab" + "ba" + "ab" + "ba" + "ab"
    assert found.macs is None and found.original.batch == 2


def test_macs_come_from_the_record():
    model, x = net(), torch.randn(2, 3, 8, 8)
    small = fxprune.compress(model, x, macs=0.5)
    found = fxprune.compare(model, small, x, repeats=3, warmup=1)
    record = fxprune.record(small)
    assert found.macs == record.before.macs / record.after.macs > 1.9
    assert found.spread[0] <= found.ratio <= found.spread[1]
    assert f"at {found.macs:.2f}× fewer MACs; batch 2" in str(found)


@pytest.mark.parametrize(("options", "message"), [
    ({"repeats": 0}, "repeats must be a whole number of at least 1, got 0"),
    ({"warmup": -1}, "warmup must be a whole number of at least 0, got -1"),
    ({"threads": 1.5}, "threads must be a whole number of at least 1, got 1.5"),
    ({"repeats": True}, "repeats must be a whole number of at least 1, got True"),
])
def test_counts_that_make_no_sense(options, message):
    with pytest.raises(InputError) as error:
        fxprune.measure(net(), torch.randn(1, 3, 8, 8), **options)
    assert str(error.value) == message


def test_inputs_that_do_not_fit():
    with pytest.raises(InputError, match="must have the model's dtype"):
        fxprune.measure(net(), torch.randn(1, 3, 8, 8).double())
    with pytest.raises(InputError, match="got str"):
        fxprune.measure(net(), "image")
    with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module, got function"):
        fxprune.compare(net(), lambda x: x, torch.randn(1, 3, 8, 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    found = fxprune.measure(net().cuda(), torch.randn(2, 3, 8, 8, device="cuda"), repeats=3, warmup=1)
    assert found.device == "cuda:0" and found.median > 0
