"""The module form: the user's own class, smaller, with the numbers that its Python holds set anew."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import FormError, VerificationError

X = torch.randn(2, 5, 16)


class Config:
    def __init__(self, heads, size):
        self.heads, self.size = heads, size


class Attention(nn.Module):
    """Its numbers are attributes, its own and those of a configuration that all layers share."""

    def __init__(self, width, config):
        super().__init__()
        self.config, self.inner = config, config.heads * config.size
        self.scale = config.size ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * self.inner), nn.Linear(self.inner, width)

    def split(self, x):
        return x.view(*x.shape[:2], self.config.heads, self.config.size).transpose(1, 2)

    def forward(self, x):
        q, k, v = map(self.split, self.qkv(x).split(self.inner, -1))
        y = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1) @ v
        return self.out(y.transpose(1, 2).reshape(*x.shape[:2], self.inner))


class Net(nn.Module):
    """Two layers, a branch that the example does not take, and a method of its own."""

    def __init__(self):
        super().__init__()
        config = Config(4, 4)
        self.layers = nn.ModuleList([Attention(16, config), Attention(16, config)])
        self.head = nn.Linear(16, 3)

    def features(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

    def forward(self, x, double=False):
        x = self.features(x)
        return self.head(x) * 2 if double else self.head(x)


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.mid, self.out = nn.Linear(16, 12), nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.inner(x).view(2, 5, 4, 3).transpose(2, 3)
        return self.out(torch.relu(self.mid(x.flatten(2))))


class Rooted(Literal):
    """A width steers a value."""

    def forward(self, x):
        x = self.inner(x)
        return self.out(torch.relu(self.mid(x * x.shape[-1] ** -0.5)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)
        self.attention, self.out = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        x = self.norm(self.inner(x))
        return self.out(x + self.attention(x, x, x, need_weights=False)[0])


def test_the_same_class_with_its_attributes_set_anew():
    torch.manual_seed(0)
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    small = fxprune.compress(model, X, channels=0.5, form="module")
    assert type(small) is Net and fxprune.record(small).mode == "module"
    assert [layer.inner for layer in small.layers] == [8, 8] and [layer.qkv.out_features for layer in small.layers] == \
        [24, 24]
    assert small.layers[0].config.heads * small.layers[0].config.size == 8
    assert [layer.inner for layer in model.layers] == [16, 16] and model.layers[0].config.size == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # What was not captured stays: an argument, and a method.
    assert torch.equal(small(X, double=True), small(X) * 2) and small.features(X).shape[-1] == small.head.in_features
    assert fxprune.record(small).verification.nodes > 10


def test_both_forms_of_one_plan_give_the_same_numbers():
    torch.manual_seed(0)
    model = Net().eval()
    coupling = fxprune.analyze(model, X, form="module")
    plan = fxprune.plan(coupling, model, macs=0.4)
    graph, module = fxprune.apply(model, plan), fxprune.apply(model, plan, form="module")
    assert isinstance(graph, torch.fx.GraphModule) and type(module) is Net
    assert torch.allclose(graph(X), module(X), atol=1e-6) and graph.state_dict().keys() == module.state_dict().keys()
    assert fxprune.verify(model, module, plan).ok
    module.layers[0].scale *= 1.01
    with pytest.raises(fxprune.VerificationError, match="layers.0.out"):
        fxprune.verify(model, module, plan)


def test_a_configuration_is_copied_where_two_modules_need_different_values():
    torch.manual_seed(0)
    model = Net().eval()
    coupling = fxprune.analyze(model, X, form="module")
    first, second = (next(g for n, g in coupling.groups.items() if n.startswith(f"layers.{k}.qkv")) for k in (0, 1))
    plan = fxprune.Plan.from_widths(coupling, model, {first.name: 1, second.name: first.size - 1})
    small = fxprune.apply(model, plan, form="module")
    ones, others = (layer.config for layer in small.layers)
    assert ones is not others and ones.heads * ones.size == small.layers[0].inner < small.layers[1].inner
    assert model.layers[0].config is model.layers[1].config and fxprune.verify(model, small, plan).ok


def test_a_literal_holds_what_it_fixes_and_says_where():
    model = Literal().eval()
    coupling = fxprune.analyze(model, X, form="module")
    held = coupling.groups["inner"].frozen
    assert "view (test_module_form.py:" in str(held) and "gives it" in str(held)
    assert coupling.groups["mid"].frozen is None and fxprune.analyze(model, X).groups["inner"].frozen is None
    plan = fxprune.plan(fxprune.analyze(model, X), model, channels=0.5)
    assert fxprune.verify(model, fxprune.apply(model, plan, verify=False), plan).ok
    with pytest.raises(FormError, match=r'view \(test_module_form.py:\d+\): .*form="graph", which rewrites them'):
        fxprune.apply(model, plan, form="module")


def test_a_size_that_steers_a_value_holds():
    coupling = fxprune.analyze(Rooted().eval(), X, form="module")
    assert "mul (test_module_form.py:" in str(coupling.groups["inner"].frozen)
    assert fxprune.analyze(Rooted().eval(), X).groups["inner"].frozen is None


def test_attention_of_torch_loses_whole_heads_and_as_much_of_the_model():
    torch.manual_seed(0)
    model = Encoder().eval()
    small = fxprune.compress(model, X, channels=0.5, form="module")
    attention = small.attention
    assert (attention.num_heads, attention.embed_dim, attention.head_dim) == (2, 8, 4)
    assert small.norm.weight.numel() == 8 == attention.out_proj.in_features
    # In training mode and without gradients torch takes other ways through it.
    with torch.no_grad():
        quick = small(X)
    assert torch.allclose(quick, small(X), atol=1e-6)


def test_hooks_and_modes_stay():
    model = Net().eval()
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    model.layers[1].train()
    small = fxprune.compress(model, X, channels=0.5, form="module", verify=False)
    assert not seen and small.layers[1].training and not small.layers[0].training and not small.training
    small(X)
    assert seen == [(2, 5, 3)]


def test_pickles_load_without_fxprune(tmp_path):
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n\n\nclass Theirs(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)\n\n"
        "    def forward(self, x):\n        return self.b(self.a(x).relu())\n")
    sys.path.insert(0, str(tmp_path))
    try:
        from their_net import Theirs
        x = torch.randn(1, 3, 8, 8)
        small = fxprune.compress(Theirs(), x, channels=0.5, form="module")
    finally:
        sys.path.remove(str(tmp_path))
    for module in (small, copy.deepcopy(small)):
        torch.save(module, tmp_path / "small.pt")
        code = ("import sys, torch; sys.modules['fxprune'] = None; sys.path.insert(0, '.'); "
                "net = torch.load('small.pt', weights_only=False); "
                "print(net.a.out_channels, net(torch.ones(1, 3, 8, 8)).shape)")
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "4 torch.Size([1, 4, 4, 4])\n", done.stderr
    loaded = torch.load(tmp_path / "small.pt", weights_only=False)
    assert fxprune.record(loaded).plan == fxprune.record(small).plan


def test_a_form_that_is_none():
    with pytest.raises(fxprune.InputError, match=r"Policy\(form=\) must be 'graph' or 'module', got 'copy'"):
        fxprune.compress(Net(), X, form="copy")


class Even(nn.Module):
    """Of an odd width there is no ``self.width`` that its Python makes the right number of; a trial's cut is even."""

    def __init__(self):
        super().__init__()
        self.width = 12
        self.into, self.mid, self.out = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.into(x).view(len(x), self.width // 2 * 2)
        return self.out(self.mid(x).relu())


@pytest.mark.parametrize("budget, mid", [({"channels": 0.4}, 7), ({"macs": 0.4}, 3)])
def test_a_plan_that_the_form_cannot_carry_out_is_drawn_again(budget, mid):
    torch.manual_seed(0)
    model, x = Even().eval(), torch.randn(2, 6)
    assert fxprune.record(fxprune.compress(model, x, **budget)).after.widths["into"] % 2
    small = fxprune.compress(model, x, form="module", **budget)
    record = fxprune.record(small)
    assert record.after.widths == {"into": 12, "mid": mid, "out": 3} and record.verification.ok
    assert record.after.macs <= budget.get("macs", 1) * record.before.macs
    assert "the model's Python gives it 12, and it would have to be" in record.coupling.groups["into"].frozen.why
    assert fxprune.verify(model, small, record.plan).ok


def test_widths_that_are_said_are_not_drawn_again():
    model, x = Even().eval(), torch.randn(2, 6)
    with pytest.raises(fxprune.errors.FormError, match="gives it 12, and it would have to be 5"):
        fxprune.compress(model, x, widths={"into": 5}, form="module")
    plan = fxprune.plan(fxprune.analyze(model, x), model, channels=0.4)
    with pytest.raises(fxprune.errors.FormError, match="gives it 12, and it would have to be 5"):
        fxprune.apply(model, plan, form="module")


class Guarded(nn.Module):
    """In training it asks whether values are finite, as detectors do."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.into, self.out = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.into(x).view(len(x), self.heads, -1).flatten(1)
        if self.training and not torch.isfinite(x).all():
            x = torch.clamp(x, -1e4, 1e4)
        return self.out(x)


def test_a_model_that_asks_whether_values_are_finite():
    small = fxprune.compress(Guarded(), torch.randn(2, 6), channels=0.5, form="module")
    assert type(small) is Guarded and small.into.out_features == 8 and fxprune.record(small).verification.ok
    assert small.train()(torch.full((2, 6), 1e30)).isfinite().all() and small(torch.randn(2, 6)).shape == (2, 3)


class Stacked(nn.Module):
    """As WaveNet: of the last residual nothing comes, and Python computes it all the same."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 1)
        self.inner, self.residual, self.skip = (nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in "12") for _ in "123")
        self.head = nn.Conv1d(8, 3, 1)

    def forward(self, x):
        h, skips = self.stem(x), 0
        for inner, residual, skip in zip(self.inner, self.residual, self.skip, strict=True):
            z = inner(h).tanh()
            h = h + residual(z)
            skips = skips + skip(z)
        return self.head(skips)


def test_what_is_added_to_a_stream_for_nothing_is_cut_along():
    torch.manual_seed(0)
    model, x = Stacked(), torch.randn(2, 2, 5)
    assert fxprune.analyze(model, x).unused == ("residual.1.bias", "residual.1.weight")
    small = fxprune.compress(model, x, channels=0.5, form="module")
    assert small.residual[1].weight.shape == (4, 4, 1) and fxprune.record(small).coupling.groups["stem"].frozen is None


class SizedByInput(nn.Module):
    """The size of a head is a quarter of what the *input* is wide, of which nothing goes."""

    def __init__(self):
        super().__init__()
        self.qkv, self.into, self.out, self.heads = nn.Linear(16, 48), nn.Linear(16, 8), nn.Linear(24, 3), 4

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = (t.view(b, n, self.heads, c // self.heads).transpose(1, 2) for t in self.qkv(x).split(c, -1))
        y = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
        return self.out(torch.cat([y, self.into(x)], -1))


def test_what_cannot_keep_in_step_stays():
    torch.manual_seed(0)
    model, x = SizedByInput().eval(), torch.randn(2, 5, 16)
    small = fxprune.compress(model, x, channels=0.5, form="module")
    assert small.qkv.out_features == 48 and small.into.out_features == 4


def test_a_call_whose_result_nobody_reads_is_counted():
    """The graph does not have it, and the module makes it."""
    class Summary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, tokens):
            summary = self.out(self.into(tokens.mean(1, keepdim=True)).relu())
            tokens = self.out(self.into(tokens).relu())
            return {"tokens": tokens, "summary": summary}["tokens"]

    torch.manual_seed(0)
    model, tokens = Summary().eval(), torch.randn(2, 5, 8)
    small = fxprune.compress(model, tokens, channels=0.5, form="module")
    record = fxprune.record(small)
    assert record.verification.ok and small.into.out_features == 8
    small.out.bias.data[0] += 1e-3
    with pytest.raises(VerificationError, match="'out.bias' must hold"):
        fxprune.verify(model, small, record.plan)
