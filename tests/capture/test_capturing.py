"""The captured graph, with nothing pruned, is the model: on new inputs, at other sizes, in both modes."""

import copy
import pickle

import numpy as np
import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.capture.capturing import capture
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import Plan
from fxprune.planning.digest import digest_of
from fxprune.rewrite.folding import Folded


def whole(model, *example):
    """The emitted module of a plan that removes nothing."""
    analysis = analysis_of(model, example)
    coupling = analysis.coupling
    plan = Plan.build(coupling.groups, {}, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases={})
    return carry_out(Folded(model), analysis, plan)


def agree(model, small, *inputs):
    for mode in (True, False):
        model.train(mode), small.train(mode)
        ours, theirs = copy.deepcopy(small), copy.deepcopy(model)
        reference.assert_close(ours.double()(*inputs), theirs.double()(*inputs), f"training={mode}")


class Sizes(nn.Module):
    """Everything that a size is good for."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x)
        b, c, h, w = y.shape
        if h % 2:
            y = F.pad(y, (0, 0, 0, 1))
        y = y[:, :, : h // 2 * 2].reshape(b, c, -1).transpose(1, 2)
        positions = torch.arange(y.size(1), device=y.device, dtype=y.dtype)[:, None]
        y = y + positions / max(y.shape[1] - 1, 1) + len(y) * 0.1 + y.numel() ** 0.5 * y.shape[-1] ** -0.5
        rows = torch.zeros(b, 1, c, dtype=y.dtype)
        return self.b(torch.cat([rows.expand(-1, 2, -1), y], 1)), h * w


def test_sizes_stay_symbolic():
    model = Sizes()
    small = whole(model, torch.randn(2, 3, 6, 8))
    for shape in ((2, 3, 6, 8), (5, 3, 6, 8), (1, 3, 10, 4)):
        agree(model, small, torch.randn(shape, dtype=torch.float64))


class Counted(nn.Module):
    """``int()`` of a size, which a table is asked for."""

    def forward(self, x):
        return x * {6: 2.0, 8: 3.0}[int(x.shape[1])]


def test_a_number_that_python_took_is_held_to_that_number():
    (traced,) = capture(Counted(), torch.randn(2, 6)).traced
    assert [(fixed.argument, fixed.dim, fixed.length) for fixed in traced.fixed] == [("x", 1, 6)]
    small = whole(Counted(), torch.randn(2, 6))
    assert torch.equal(small(torch.ones(3, 6)), torch.full((3, 6), 2.0))
    with pytest.raises(AssertionError, match="x of size 6 in dimension 1, .*capture again for inputs of this size"):
        small(torch.ones(3, 8))


def test_a_branch_on_a_size_is_a_guard():
    small = whole(Sizes(), torch.randn(2, 3, 6, 8))
    with pytest.raises(AssertionError, match=r"captured where bool\(mod\(size\(2\), 2\)\) was False.*capture again"):
        small(torch.randn(2, 3, 7, 8))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x, steps=3, flag=None):
        if x.dim() == 2 and x.shape[-1] == 4 and x.shape[0] < 100:
            for k in range(steps):
                x = x + self.b(self.a(x)) * (k + 1)
        assert x.is_floating_point(), "floats, please"
        return {"x": x if flag is None else -x, "steps": steps}


def test_plain_arguments_are_fixed_and_conditions_are_guards():
    model = Branches()
    small = whole(model, torch.randn(2, 4))
    agree(model, small, torch.randn(50, 4, dtype=torch.float64))
    with pytest.raises(AssertionError, match="capture again"):
        small(torch.randn(101, 4))


def test_guards_on_what_the_weights_determine_are_left_out():
    class Checks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            y = self.a(x)
            assert y.shape[-1] == 6 and y.shape[-1] % 2 == 0
            return self.b(y)

    model = Checks()
    small = fxprune.compress(model, torch.randn(2, 4), channels=0.4)
    assert small.a.out_features == 3 and small(torch.randn(7, 4)).shape == (7, 2)


def test_batch_of_one_is_not_baked_in():
    model = Sizes()
    small = whole(model, torch.randn(1, 3, 6, 8))
    agree(model, small, torch.randn(4, 3, 6, 8, dtype=torch.float64))


def test_devices_and_dtypes_follow_the_input():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x):
            scale = torch.full((x.shape[0], 1), 0.5, device=x.device, dtype=x.dtype)
            return self.a(x) * scale + torch.ones_like(x[:, :1]).to(x)

    small = whole(Mixed(), torch.randn(3, 4))
    assert small.double()(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64
    assert str(small.to("meta")(torch.randn(2, 4, device="meta", dtype=torch.float64)).device) == "meta"


class GivesBack(nn.Module):
    """Dropout in inference mode, ``float`` of a float and an identity give back what they got."""

    def __init__(self):
        super().__init__()
        self.a, self.drop, self.same, self.b = nn.Linear(4, 6), nn.Dropout(0.5), nn.Identity(), nn.Linear(6, 2)

    def forward(self, x):
        y = self.a(x)
        wide = y.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(0, keepdim=True) + 1e-6)
        weight = self.b.weight.contiguous() * self.b.weight
        return self.b(y + self.drop(y) + self.same(y)) + F.linear(y + wide.to(y.dtype), weight)


def test_what_is_given_back_is_not_the_result():
    """In training, or in half precision, the input and the result are two."""
    model = GivesBack()
    small = whole(model, torch.randn(3, 4))
    for mode in (True, False):
        model.train(mode), small.train(mode)
        outs = []
        for module in (model, small):
            torch.manual_seed(0)
            outs.append(module(torch.ones(5, 4)))
        assert torch.equal(*outs)
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    ours, theirs = small.to(torch.bfloat16)(x), model.to(torch.bfloat16)(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16 and torch.equal(ours, theirs)


def test_capture_holds_no_weights():
    captured = capture(Sizes(), torch.randn(2, 3, 6, 8))
    assert all(p.is_meta for p in captured.root.parameters())


def test_nothing_random_is_frozen():
    """What was drawn while tracing is drawn again at every run."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x):
            return self.a(x + torch.randn_like(x)) * torch.rand(x.shape[0], 1)

    small = whole(Noisy(), torch.randn(2, 4)).eval()
    x = torch.randn(2, 4)
    assert not torch.equal(small(x), small(x))


@pytest.mark.parametrize("make", [
    lambda: nn.Linear(4, 3), lambda: nn.LSTM(4, 3), lambda: nn.ReLU(), lambda: nn.Identity(),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), lambda: nn.MultiheadAttention(4, 2),
], ids=["linear", "lstm", "relu", "identity", "sequential", "attention"])
def test_roots_that_are_layers_themselves(make):
    model = make()
    x = torch.randn(5, 4, 4) if isinstance(model, nn.MultiheadAttention) else torch.randn(5, 4)
    example = (x, x, x) if isinstance(model, nn.MultiheadAttention) else (x,)
    agree(model, whole(model, *example), *(t.double() for t in example))


def test_a_power_is_written_so_that_the_emitted_code_finds_it():
    class Squared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(self.a(x) ** 2)

    small = fxprune.compress(Squared(), torch.randn(2, 4), channels=0.5)
    assert small(torch.randn(2, 4)).shape == (2, 2)


class Placed(nn.Module):
    """Asks where its tensors are."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.a(x)
        y = y.relu() if y.device.type == "cpu" and y.is_cpu and not y.is_cuda and not y.is_meta else y.sigmoid()
        return self.b(y.to(x.device) + torch.ones(1, device=self.b.weight.device).to("cpu"))


def test_a_model_sees_the_device_that_it_is_on():
    model, x = Placed(), torch.randn(2, 6)
    small = fxprune.compress(model, x, channels=0.5)
    assert fxprune.record(small).mode == "graph" and "relu" in small.code and "sigmoid" not in small.code
    assert small.double()(x.double()).dtype == torch.float64


class Careful(nn.Module):
    """Looks at its data, unless it is told that there is none to look at."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, mask):
        hidden = self.a(x).relu()
        if torch.compiler.is_compiling() or not mask.all():
            hidden = hidden * mask
        return self.b(hidden)


def test_what_runs_under_torch_compile_is_captured_where_the_rest_reads_data():
    model, example = Careful(), (torch.randn(2, 6), torch.ones(2, 1))
    small = fxprune.compress(model, example, channels=0.5, fold_constants=True)
    coupling = fxprune.record(small).coupling
    assert coupling.mode == "graph" and "reads a tensor's contents" in coupling.eager
    assert "under torch.compile" in coupling.report() and "is_nonzero" in coupling.report("json")
    assert not torch.compiler.is_compiling()
    mask = torch.tensor([[1.0], [0.0]])
    assert torch.equal(small(example[0], mask)[1], small.b.bias)


class Functional(nn.Module):
    """Runs a net on weights that it computes from its own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x):
        weights = {name: parameter * 2 for name, parameter in self.net.named_parameters()}
        return torch.func.functional_call(self.net, weights, (x,))


def test_layers_that_run_on_computed_weights_are_calls_of_functions():
    model = Functional()
    small = fxprune.compress(model, torch.randn(5, 4), channels=0.5)
    assert small.get_submodule("net.0").weight.shape == (8, 4)
    reference.assert_agrees(model, small, fxprune.record(small).plan.keep, lambda batch: (torch.randn(batch, 4),))


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return x * self.scale


def test_a_model_whose_weights_have_no_dimensions_is_analysed():
    assert not fxprune.analyze(Scalar(), torch.randn(2, 3)).groups


@torch.jit.script
def scripted(x, weight: torch.Tensor, bias: torch.Tensor, slope: float):
    y = torch.nn.functional.linear(x, weight, bias)
    return y * torch.sigmoid(y * slope)


class Unseen(nn.Module):
    """Operators that no function of torch is called for: TorchScript's, and those of constructors in C++."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        y = scripted(x, self.a.weight, self.a.bias, 1.5)
        noise = torch.FloatTensor(x.shape[0], 2 * y.shape[1]).fill_(0.5).to(y)
        return self.b(y + noise[:, :y.shape[1]])


def test_operators_that_python_does_not_see_are_nodes():
    model = Unseen()
    small = fxprune.compress(model, torch.randn(4, 6), channels=0.5)
    record = fxprune.record(small)
    assert record.mode == "graph" and record.verification.nodes >= 14
    assert small.get_submodule("a").weight.shape == (8, 6) and "meta" not in small.code
    reference.assert_agrees(model, small, record.plan.keep, lambda batch: (torch.randn(batch, 6),), batches=(2, 5))


class Numbers(nn.Module):
    """numpy's own numbers, and a size that is divided and rounded."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        y = self.a(x) * np.float64(0.5) + np.sqrt(2.0) * np.float32(1.5) - np.int64(2)
        halves = y.reshape(int(y.shape[0] / (y.shape[-1] / 8)), -1, 16)
        return self.b(halves).reshape(x.shape[0], -1)


def test_numbers_of_numpy_and_rounded_sizes_survive_pickling():
    model = Numbers()
    small = fxprune.compress(model, torch.randn(4, 6), channels=0.5)
    assert "np." not in small.code
    x = torch.randn(8, 6)
    again = pickle.loads(pickle.dumps(small))
    assert torch.equal(again(x), small(x)) and small(x).shape == (8, 3)
    assert torch.equal(copy.deepcopy(small)(x), small(x))
