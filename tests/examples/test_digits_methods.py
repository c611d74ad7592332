"""Every method of the literature runs on the digits, and does its part of a step where it says."""

from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("sklearn")
digits_methods = pytest.importorskip("digits_methods")


@pytest.mark.slow
@pytest.mark.parametrize("method", digits_methods.METHODS)
def test_a_method_of_the_literature(method, capsys):
    digits_methods.main(["--methods", method, "--epochs", "1", "--macs", "0.5"])
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert row[0] == method and all(0 <= float(cell) <= 100 for cell in row[2:5])
    assert float(row[5]) <= (100 if method == "HALP" else 50)  # which keeps a share of the time


def test_a_step_of_a_method_is_taken_where_it_says():
    seen = []

    @contextmanager
    def around(model):
        seen.append("around")
        yield
        seen.append("left")

    def term(model):
        seen.append("term")
        return 0.0

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    steps = digits_methods.Steps(
        around=around, term=term, gradients=lambda m: seen.append(m[1].weight.grad is not None),
        updated=lambda m, lr: seen.append(lr), epoch=lambda m: seen.append("epoch"),
        finish=lambda m: seen.append("finish"))
    digits_methods.train_on(model, steps, (torch.randn(128, 1, 8, 8), torch.zeros(128, dtype=torch.int64)), epochs=1)
    step = ["around", "term", "left", True]
    assert seen == [*step, 0.05, *step, pytest.approx(0.025), "epoch", "finish"]
