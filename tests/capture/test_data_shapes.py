"""What the contents of an input decide on is told dimension by dimension."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.data_shapes import DataShapes, sized_by_data
from fxprune.passes import analysis_of

aten = torch.ops.aten


class Watched:
    """Runs operators on true tensors and takes down what they give."""

    def __init__(self):
        self.shapes, self.numbers = DataShapes(), {}

    def number(self, tensor):
        return self.numbers.setdefault(id(tensor), (len(self.numbers), tensor))[0]

    def run(self, func, *args, **kwargs):
        out = func(*args, **kwargs)
        tensors = [t for arg in args for t in (arg if isinstance(arg, list) else [arg]) if isinstance(t, torch.Tensor)]
        operands = {id(t): self.number(t) for t in tensors}
        self.shapes.note(func, args, kwargs, operands, [(self.number(out), out)])
        return out

    def of(self, tensor):
        return sorted(self.shapes.dims.get(self.number(tensor), ()))


def found(watched, x):
    """``x`` [2, 9] with the columns of a mask."""
    return watched.run(aten.index.Tensor, x, [None, x[0] != x[1]])


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def edges():
    return torch.tensor([[0, 1, 2, 3, 4, 4, 1, 0, 2], [0, 2, 3, 4, 0, 1, 1, 3, 0]])


def test_a_mask_decides_on_its_own_dimension(watched, edges):
    assert watched.of(found(watched, edges)) == [1]
    picture = torch.rand(4, 5, 6)
    assert watched.of(watched.run(aten.index.Tensor, picture, [picture.sum(-1) > 3])) == [0]


def test_it_is_followed_through_operators(watched, edges):
    kept = found(watched, edges)
    row = watched.run(aten.select.int, kept, 0, 0)
    assert watched.of(row) == [0]
    assert watched.of(watched.run(aten.cat.default, [kept, torch.zeros(2, 5, dtype=torch.long)], 1)) == [1]
    rows = watched.run(aten.index_select.default, torch.rand(5, 8), 0, row)
    assert watched.of(rows) == [0]
    assert watched.of(watched.run(aten.transpose.int, rows, 0, 1)) == [1]
    assert watched.of(watched.run(aten.view.default, rows, [-1])) == [0]
    assert watched.of(watched.run(aten.sum.dim_IntList, rows, [0])) == []
    assert watched.of(watched.run(aten.index_add.default, torch.zeros(5, 8), 0, row, rows)) == []


def test_a_move_to_a_device_moves_no_contents(watched, edges):
    kept = found(watched, edges)
    assert watched.of(watched.run(aten.to.device, kept, torch.device("cpu"), torch.float64)) == [1]


def test_numbers_that_were_read_from_it_are_known_by_their_value(watched, edges):
    kept = found(watched, edges)
    watched.shapes.given = frozenset({kept.shape[1]})
    assert watched.of(watched.run(aten.zeros.default, [kept.shape[1], 8])) == [0]
    assert watched.of(watched.run(aten.view.default, kept, [kept.shape[1], 2])) == [0]


def test_where_it_cannot_be_asked_all_dimensions_are_decided_on(watched, edges):
    kept = found(watched, edges)
    assert watched.of(watched.run(aten.view.default, kept, [kept.shape[1], 2])) == [0, 1]
    assert watched.of(watched.run(aten.nonzero.default, edges)) == [0, 1]


def test_how_many_tensors_there_are():
    shapes, x = DataShapes(), torch.rand(3, 4)
    shapes.dims[0] = frozenset({1})
    assert not shapes.number_of(aten.unbind.int, (x,), {id(x): 0})
    assert shapes.number_of(aten.unbind.int, (x, 1), {id(x): 0})
    assert shapes.number_of(aten.split.Tensor, (x, 2, -1), {id(x): 0})
    assert not shapes.number_of(aten.select.int, (x, 1, 0), {id(x): 0})


def test_tags_say_which_operators_are():
    x = torch.rand(3)
    assert sized_by_data(aten.masked_select.default, (x, x > 0), {})
    assert sized_by_data(aten.index.Tensor, (x, [x > 0]), {}) and not sized_by_data(aten.relu.default, (x,), {})


class Loops(nn.Module):
    """Drops the loops of a graph, and asks of what is left what Python likes to know."""

    def __init__(self, ask):
        super().__init__()
        self.a, self.b, self.ask = nn.Linear(6, 16), nn.Linear(16, 3), ask

    def forward(self, x, edges):
        edges = edges[:, edges[0] != edges[1]]
        self.ask(edges)
        h = self.a(x).relu()
        return self.b(torch.zeros_like(h).index_add(0, edges[1], h[edges[0]]))


def nothing_if(condition):
    if condition:
        raise ValueError("not this one")


@pytest.mark.parametrize(("ask", "mode"), [
    (lambda edges: nothing_if(edges.size(0) != 2), "graph"), (lambda edges: nothing_if(edges.numel() == 0), "graph"),
    (lambda edges: nothing_if(edges.shape[1] > 8), "module"),
    (lambda edges: nothing_if(torch.zeros(edges.shape[1]).shape[0] > 8), "module")])
def test_only_a_length_that_the_data_decide_on_steers_python(ask, mode, edges):
    analysis = analysis_of(Loops(ask).eval(), (torch.rand(5, 6), edges))
    assert analysis.coupling.mode == mode, analysis.coupling.why
    if mode == "module":
        assert "the contents of its inputs decide on" in analysis.coupling.why


def test_that_there_is_anything_is_asserted(edges):
    torch.manual_seed(0)
    small = fxprune.compress(Loops(lambda kept: nothing_if(kept.numel() == 0)).eval(), (torch.rand(5, 6), edges),
                             channels=0.5)
    assert small(torch.rand(5, 6), edges[:, 1:4]).shape == (5, 3)
    with pytest.raises(AssertionError, match="was False"):
        small(torch.rand(5, 6), edges[:, :1])


class Sized(nn.Module):
    """What it runs hangs on how many rows the data choose."""

    def __init__(self, turned):
        super().__init__()
        self.a, self.b, self.turned = nn.Linear(4, 8), nn.Linear(8, 2), turned

    def forward(self, x):
        chosen = x[x.sum(1) > 0]
        hidden = self.a(chosen)
        return self.b(-hidden if self.turned(chosen) else hidden)


@pytest.mark.parametrize(("turned", "why"), [
    (lambda rows: len(rows) > 2, "asks for a size that the contents of its inputs decide on"),
    (lambda rows: (torch.arange(len(rows)) > 2).any(), "asks for a size that the contents of its inputs decide on"),
    (lambda rows: rows.shape[0] > 2, "asks for a size that the contents of its inputs decide on"),
    (lambda rows: (torch.arange(rows.shape[0]) > 2).any(), "reads a tensor's contents in Python"),
], ids=["len", "made to len", "shape", "made to shape"])
def test_how_many_the_data_choose_steers_no_graph(turned, why):
    torch.manual_seed(0)
    model, x = Sized(turned).eval(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    small = fxprune.compress(model, x, channels=0.5)
    assert type(small) is Sized and why in fxprune.record(small).coupling.why
    kept = fxprune.record(small).plan.keep["a.weight"][0]
    with torch.no_grad():
        for row in set(range(8)) - set(kept):
            model.a.weight[row], model.a.bias[row] = 0, 0
    for rows in range(1, 7):
        y = torch.where(torch.arange(6)[:, None] < rows, 1.0, -1.0).expand(6, 4)
        torch.testing.assert_close(small(y), model(y))
