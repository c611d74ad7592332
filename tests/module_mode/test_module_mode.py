"""The last resort: models whose Python cannot be traced come back as shrunken copies of their own class."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fxprune

X = torch.randn(2, 3, 16, 16)


class Steered(nn.Module):
    """Data decides what runs."""

    limit = 0.4

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(x + (self.a(x) if x.mean() > self.limit else self.b(x)))


class Literal(Steered):
    """A width in its Python holds one group; the others may go."""

    def __init__(self):
        super().__init__()
        self.b = None
        self.inner, self.out = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.inner(x).view(len(x), 12, -1).mean(-1)[..., None, None]
        return self.head((x + self.a(x) if x.mean() > -9 else x) + self.out(y))


class Scaled(Steered):
    """A width steers values, not shapes."""

    def __init__(self):
        super().__init__()
        self.b = None
        self.inner, self.out = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.inner(x)
        y = self.out(y * y.shape[1] ** -0.5)
        return self.head((x + self.a(x) if x.mean() > -9 else x) + y)


class Borrowed(nn.Module):
    """Its view takes the number of channels from another tensor than the one that is viewed."""

    def __init__(self):
        super().__init__()
        self.wide, self.out = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        batch, channels, height, width = x.shape
        y = self.wide(x).view(batch, 2, 16, height * width)
        return self.out(y.mean(1).view(batch, channels, height, width))


class Attending(Steered):
    """What arrives at an operator is held, and yet it is refused."""

    def __init__(self):
        super().__init__()
        self.b = None
        self.inner, self.borrowed = nn.Conv2d(16, 12, 1), Borrowed()
        self.out = nn.Conv2d(12, 16, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.borrowed(x)
        return self.head((x + self.a(x) if x.mean() > -9 else x) + self.out(self.inner(x)))


class Block(nn.Module):
    """A width in its Python."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x):
        return self.out(self.inner(x).view(len(x), 12, -1).mean(-1)[..., None, None])


class Counted(Steered):
    """How many values are large decides on a factor."""

    def forward(self, x):
        found = x.flatten()[x.flatten() > 0.5]
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(self.a(x) + self.b(x)) * (2 if found.shape[0] > 100 else 1)


class TakenApart(Steered):
    """As many steps as there are large values."""

    def __init__(self):
        super().__init__()
        self.b = None

    def forward(self, x):
        y = self.head(self.a(torch.relu(self.norm(self.stem(x)))))
        return y + sum(value for value in y.flatten()[y.flatten() > 2 * y.std()])


def compressed(model):
    torch.manual_seed(0)
    small = fxprune.compress(model.eval(), X, channels=0.5)
    assert fxprune.record(small).mode == "module" and type(small) is type(model)
    assert fxprune.record(small).verification.ok
    return small


def test_a_shrunken_copy_of_the_same_class():
    model = Steered()
    small = compressed(model)
    assert small.stem.out_channels == 8 == small.norm.num_features and model.stem.out_channels == 16
    assert set(small.state_dict()) == set(model.state_dict())
    small.train()(X).sum().backward()
    for module in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(module.eval()(X), small.eval()(X)) and fxprune.record(module).mode == "module"
    coupling = fxprune.record(small).coupling
    assert "data" in coupling.why and "cannot be traced: the model reads a tensor" in coupling.report(format="md")


class Hidden(Steered):
    """A branch that none of the variations of an input leads to."""

    def __init__(self):
        super().__init__()
        self.free, self.last = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        if 0.1234 < x[0, 0, 0, 0] < 0.1235:
            return self.b(self.stem(x))[:, :4]
        return super().forward(x + self.free(x))


def test_every_branch_that_data_leads_to_is_cut_alike():
    model = Steered().eval()
    small = compressed(model)
    assert small.a.in_channels == small.b.in_channels == 8
    plan = fxprune.record(small).plan
    kept = torch.tensor(plan.keep["stem.weight"][0])
    gone = torch.ones(16, dtype=torch.bool)
    gone[kept] = False
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for layer in (masked.stem, masked.a, masked.b):
            layer.weight[gone], layer.bias[gone] = 0, 0
        masked.norm.weight[gone], masked.norm.bias[gone] = 0, 0
    for x in (X, -X, X.abs(), -X.abs(), 9 * X):
        assert torch.allclose(small(x), masked(x), atol=1e-5)


def test_a_branch_that_was_never_met_holds_what_lies_beside_it():
    model = Hidden().eval()
    small = compressed(model)
    groups = fxprune.record(small).coupling.groups
    assert "no run has called" in str(groups["stem"].frozen) and groups["free.0"].frozen is None
    x = X.clone()
    x[0, 0, 0, 0] = 0.12345
    assert torch.equal(small(x), model(x)) and small(X).shape == model(X).shape


def test_a_layer_that_is_never_called_but_read_holds_nothing():
    class Reads(Steered):
        def forward(self, x):
            x = torch.relu(self.norm(self.stem(x)))
            y = nn.functional.conv2d(x, self.b.weight, self.b.bias, padding=1)
            return self.head(self.a(y) if x.mean() > -9 else y)

    coupling = fxprune.record(compressed(Reads())).coupling
    assert coupling.mode == "module" and coupling.groups["b"].frozen is None


@pytest.mark.parametrize("kind", [Counted, TakenApart])
def test_a_length_that_the_data_decides_on_is_not_written_into_a_graph(kind):
    model = kind()
    small = compressed(model)
    assert "depends on the data" in fxprune.record(small).coupling.why
    for scale in (0.01, 1, 30):  # no large value, some, many
        assert small(scale * X).shape == X.shape[:1] + (4, 16, 16)


def test_a_literal_freezes_exactly_the_group_that_it_holds():
    coupling = fxprune.record(compressed(Literal())).coupling
    assert "12" in str(coupling.groups["inner"].frozen) or "size" in str(coupling.groups["inner"].frozen)
    assert coupling.groups["stem"].frozen is None


def test_a_size_of_another_tensor_freezes_what_its_module_reads():
    coupling = fxprune.record(compressed(Attending())).coupling
    assert "invalid for input" in str(coupling.groups["stem"].frozen)
    assert coupling.groups["inner"].frozen is None


def test_what_is_refused_in_one_block_is_frozen_in_all_of_its_class():
    class Many(Steered):
        def __init__(self):
            super().__init__()
            self.b, self.blocks = None, nn.ModuleList(Block() for _ in range(30))

        def forward(self, x):
            x = torch.relu(self.norm(self.stem(x)))
            for block in self.blocks:
                x = x + block(x)
            return self.head(x + self.a(x) if x.mean() > -9 else x)

    coupling = fxprune.analyze(Many().eval(), X)
    assert all(coupling.groups[f"blocks.{k}.inner"].frozen for k in range(30))
    assert coupling.groups["stem"].frozen is None


@pytest.mark.parametrize("kind", [Scaled])
def test_a_size_that_steers_values_freezes_too(kind):
    coupling = fxprune.record(compressed(kind())).coupling
    assert "steers its values" in str(coupling.groups["inner"].frozen)
    assert coupling.groups["stem"].frozen is None


def test_the_plan_can_be_applied_again():
    model = Literal().eval()
    small = compressed(model)
    again = fxprune.apply(model, fxprune.record(small).plan)
    assert torch.equal(again(X), small(X))
