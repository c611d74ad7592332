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

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(x + (self.a(x) if x.mean() > 0 else self.b(x)))


class Literal(Steered):
    """A width in its Python holds one group; the others may go."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.inner(x).view(len(x), 12, -1).mean(-1)[..., None, None]
        return self.head((x + self.a(x) if x.mean() > -9 else x) + self.out(y))


class Scaled(Steered):
    """A width steers values, not shapes."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.inner(x)
        y = self.out(y * y.shape[1] ** -0.5)
        return self.head((x + self.a(x) if x.mean() > -9 else x) + y)


class Counted(Steered):
    """How many values are large decides on a factor."""

    def forward(self, x):
        found = x.flatten()[x.flatten() > 0.5]
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(self.a(x) + self.b(x)) * (2 if found.shape[0] > 100 else 1)


class TakenApart(Steered):
    """As many steps as there are positive values."""

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
    assert "data" in fxprune.record(small).coupling._captured.why


@pytest.mark.parametrize("kind", [Counted, TakenApart])
def test_a_length_that_the_data_decides_on_is_not_written_into_a_graph(kind):
    model = kind()
    small = compressed(model)
    assert "depends on the data" in fxprune.record(small).coupling._captured.why
    for scale in (0.01, 1, 30):  # no large value, some, many
        assert small(scale * X).shape == X.shape[:1] + (4, 16, 16)


def test_a_literal_freezes_exactly_the_group_that_it_holds():
    coupling = fxprune.record(compressed(Literal())).coupling
    assert "12" in str(coupling.groups["inner"].frozen) or "size" in str(coupling.groups["inner"].frozen)
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
