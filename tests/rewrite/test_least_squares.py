"""One layer's ridge regression against the rows it was made from."""

import pytest
import torch

from fxprune.planning import moments
from fxprune.planning.moments import Moments, MomentSums
from fxprune.rewrite import least_squares

RIDGES = (1e-6, 1e-2, 1.0, 10.0)


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch):
    for module in (moments, least_squares):
        monkeypatch.setattr(module, "COLUMNS", 2)


def layer() -> tuple[torch.Tensor, ...]:
    """Rows and outputs of two groups, to fit on and held out; a weight and a bias."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, n, width, generator=generator).double() + 0.5
             for n, width in ((40, 5), (40, 3), (15, 5), (15, 3), (5, 3))]
    return *drawn, torch.randn(2, 3, generator=generator).double()


def brute(x: torch.Tensor, y: torch.Tensor, start: torch.Tensor, bias: torch.Tensor, ridge: float, intercept: bool
          ) -> tuple[torch.Tensor, torch.Tensor]:
    """Row by row, with the ridge as rows below."""
    weights, biases = start.clone(), bias.clone()
    for g in range(len(x)):
        origin = (x[g].mean(0), y[g].mean(0)) if intercept else (torch.zeros(x.shape[2]).double(), bias[g])
        rows, aim = x[g] - origin[0], y[g] - origin[1]
        if ridge != torch.inf:
            root = (ridge * torch.linalg.eigvalsh(rows.T @ rows).mean()).sqrt() * torch.eye(x.shape[2]).double()
            weights[g] = torch.linalg.lstsq(torch.cat([rows, root]), torch.cat([aim, root @ start[g]])).solution
        if intercept:
            biases[g] = y[g].mean(0) - x[g].mean(0) @ weights[g]
    return weights, biases


@pytest.mark.parametrize("intercept", [True, False])
def test_all_ridges_at_once_are_each_ridge_by_itself(intercept):
    x, y, x_held, y_held, start, bias = layer()
    fit, held = Moments.of(x, y), Moments.of(x_held, y_held)
    scale = (y_held - y_held.mean(1, keepdim=True)).square().sum()
    expected = {}
    for ridge in (*RIDGES, torch.inf):
        weight, offset = brute(x, y, start, bias, ridge, intercept)
        expected[ridge] = float((y_held - x_held @ weight - offset.unsqueeze(1)).square().sum() / scale)
    for ridges in (RIDGES, RIDGES[2:3], ()):
        found = least_squares.solve(fit, held, start, bias, intercept, ridges)
        best = min((*ridges, torch.inf), key=expected.__getitem__)
        assert found.ridge == best and found.after == pytest.approx(expected[best], rel=1e-9)
        both = brute(torch.cat([x, x_held], 1), torch.cat([y, y_held], 1), start, bias, best, intercept)
        torch.testing.assert_close((found.weight, found.bias), both)


def test_without_a_factorisation_by_eigenvalues(monkeypatch):
    x, y, x_held, y_held, start, bias = layer()
    fit, held = Moments.of(x, y), Moments.of(x_held, y_held)
    one = least_squares.solve(fit, held, start, bias, True, RIDGES)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda gram: (torch.full_like(gram, torch.nan), torch.ones(2)))
    other = least_squares.solve(fit, held, start, bias, True, RIDGES)
    torch.testing.assert_close(other.weight, one.weight)


def test_moments_are_those_of_the_rows(monkeypatch):
    monkeypatch.setattr(moments, "CHUNK", 7)
    x, y, x_more, y_more, _, _ = layer()
    sums = MomentSums()
    sums.add_(x.float(), y.float())
    sums.add_(x_more.float(), y_more.float())
    total = sums.total()
    rows, outputs = (torch.cat(side, 1).float().double() for side in ((x, x_more), (y, y_more)))
    assert total.n == 55
    torch.testing.assert_close(total.xx, rows.transpose(1, 2) @ rows)
    torch.testing.assert_close(total.xy, rows.transpose(1, 2) @ outputs)
    torch.testing.assert_close((total.x, total.y, total.yy), (rows.sum(1), outputs.sum(1), outputs.square().sum(1)))
    origin = torch.rand(2, 5).double(), torch.rand(2, 3).double()
    moved, again = total.about(*origin), Moments.of(rows - origin[0].unsqueeze(1), outputs - origin[1].unsqueeze(1))
    for name in ("x", "y", "xx", "xy", "yy"):
        torch.testing.assert_close(getattr(moved, name), getattr(again, name))
