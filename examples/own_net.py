"""A net of one's own with several branches: which channels hang together, and why; then the plan, and the result.

    python examples/own_net.py
"""

import torch
from torch import Tensor, nn

import fxprune


class TwoEyes(nn.Module):
    """Two encoders that share a depth, a gate between them, and a head over both."""

    def __init__(self, classes: int = 6):
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU())
        self.gate = nn.Conv2d(32, 32, 1)
        self.detail = nn.Conv2d(32, 24, 3, padding=1, groups=2)
        self.head = nn.Linear(32 + 24, classes)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        left, right = self.left(image), self.right(depth)
        both = left + right * torch.sigmoid(self.gate(right))
        features = torch.cat([both, self.detail(right)], dim=1)
        return self.head(features.mean((2, 3)))


def main() -> nn.Module:
    torch.manual_seed(0)
    model = TwoEyes()
    example = (torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 32))

    coupling = fxprune.analyze(model, example)
    print(coupling.report())
    print(coupling.explain("left.0", "gate"))

    plan = fxprune.plan(coupling, model, macs=0.5)
    print(plan, dict(plan.widths))
    small = fxprune.apply(model, plan)
    print(fxprune.verify(model, small, plan))
    return small


if __name__ == "__main__":
    main()
