"""A dtype that was read from a tensor follows that tensor; a constant stays what it is."""

import pytest
import torch
from test_capturing import whole
from torch import nn


class Norm(nn.Module):
    """Llama's: computes in float32, whatever it is given."""

    def __init__(self):
        super().__init__()
        self.a, self.weight = nn.Linear(6, 8), nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x):
        h = self.a(x)
        given = h.dtype
        h = h.to(torch.float32)
        return (self.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(given)).to(given)


def casts(module):
    """What every ``to`` is given: a dtype, or the node that reads one."""
    return [arg if isinstance(arg, torch.dtype) else arg.op for node in module.graph.nodes if node.target == "to"
            for arg in node.args[1:]]


def test_a_constant_stays_and_what_was_read_follows():
    small = whole(Norm(), torch.randn(2, 6))
    assert casts(small) == [torch.float32, "call_function", "call_function"]
    assert small.double()(torch.randn(2, 6).double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_the_result_does_what_the_original_does(dtype):
    model = Norm()
    small = whole(model, torch.randn(2, 6)).to(dtype)
    x = (1e3 * torch.randn(4, 6)).to(dtype)
    assert torch.equal(small(x), model.to(dtype)(x))


def test_a_model_of_half_precision():
    small = whole(Norm().bfloat16(), torch.randn(2, 6).bfloat16())
    assert casts(small) == [torch.float32, "call_function", "call_function"]


def test_where_no_other_precision_runs_dtypes_stay_as_they_were_read():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 8)

        def forward(self, x):
            return self.a(x.to(torch.float32)).to(x.dtype) @ torch.ones(8, 2)

    small = whole(Fixed(), torch.randn(2, 6))
    assert small(torch.randn(3, 6)).shape == (3, 2)
