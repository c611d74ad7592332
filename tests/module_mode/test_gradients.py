"""Models that differentiate in their forward: forces, Jacobians, gradients of an energy."""

import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F

import fxprune


class Force(nn.Module):
    """An energy of atoms by their distances, and its gradient."""

    def __init__(self):
        super().__init__()
        self.kinds, self.filter = nn.Embedding(10, 16), nn.Linear(8, 16)
        self.mix = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
        self.out = nn.Sequential(nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 1))
        self.register_buffer("centres", torch.linspace(0, 5, 8))

    def forward(self, kinds, positions):
        positions = positions.requires_grad_()
        with torch.enable_grad():
            state = self.kinds(kinds)
            distances = (positions[:, None] - positions[None] + 1e-3).norm(dim=-1)
            weights = torch.tanh(self.filter(torch.exp(-((distances[..., None] - self.centres) ** 2))))
            state = state + (weights * self.mix(state)[None]).sum(1)
            energy = self.out(state).sum()
        return energy, -torch.autograd.grad(energy, positions)[0]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 1)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            attention = (self.q(x) @ self.k(x).transpose(-1, -2) / 4).softmax(-1)
            return torch.autograd.grad(self.out(attention @ self.v(x)).sum(), x)[0]


class Convolving(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.c(F.relu(self.b(F.relu(self.a(x))))).square().sum(), x)[0]


class Energy(nn.Module):
    """Few operators, ``detach`` among them: what looks on may add none that the tape knows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 16), nn.Linear(16, 1)

    def forward(self, x):
        x = x.requires_grad_()
        with torch.enable_grad():
            energy = self.b(self.a(x).tanh()).sum()
        return torch.autograd.grad(energy, x)[0]


class Transformed(nn.Module):
    def __init__(self, transform):
        super().__init__()
        self.a, self.b, self.transform = nn.Linear(3, 16), nn.Linear(16, 2), transform

    def forward(self, x):
        return self.transform(lambda y: self.b(self.a(y).tanh()))(x)


def atoms(batch):
    return torch.randint(0, 10, (batch,)), torch.randn(batch, 3)


def energy(function):
    return torch.func.grad(lambda x: function(x).sum())


@pytest.mark.parametrize(("make", "inputs", "left"), [
    (Force, atoms, 0.3), (Attending, lambda n: (torch.randn(n, 5, 6),), 0.75),
    (Convolving, lambda n: (torch.randn(n, 3, 8, 8),), 0.35),
    (Energy, lambda n: (torch.randn(n, 3),), 0.55),
    (lambda: Transformed(torch.func.jacrev), lambda n: (torch.randn(n, 3),), 0.55),
    (lambda: Transformed(lambda f: torch.func.vmap(torch.func.jacrev(f))), lambda n: (torch.randn(n, 3),), 0.55),
    (lambda: Transformed(energy), lambda n: (torch.randn(n, 3),), 0.55),
], ids=["force", "attention", "convolutions", "energy", "jacrev", "vmap", "grad"])
def test_a_model_that_differentiates_is_pruned(make, inputs, left):
    torch.manual_seed(0)
    model = make().eval()
    small = fxprune.compress(model, inputs(5), channels=0.5)
    record = fxprune.record(small)
    assert record.mode == "module" and record.verification.max_error < 1e-12
    count = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    assert count < left
    full, ours = reference.masked(model, record.plan.keep, 0), small.double()
    plain = reference.duplicate(model).double()
    reference.randomise(plain, 0)
    reference.load(ours, plain, record.plan.keep)
    arguments = reference.doubled(inputs(4))
    reference.assert_close(ours(*arguments), full(*arguments), "eval")


def test_a_wrong_gradient_is_found():
    model = Transformed(torch.func.jacrev).eval()
    x = torch.randn(5, 3)
    plan = fxprune.plan(fxprune.analyze(model, x), model, channels=0.5)
    small = fxprune.apply(model, plan)
    small.b.register_forward_hook(lambda module, args, output: output * 1.001)
    with pytest.raises(fxprune.VerificationError, match="output"):
        fxprune.verify(model, small, plan)
