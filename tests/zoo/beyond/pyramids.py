"""Encoders with skips and pyramids: U-Nets, FPN, YOLO-style C2f, CSP and ELAN blocks."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


def conv(a: int, b: int, kernel: int = 3, stride: int = 1, rank: int = 2) -> nn.Sequential:
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    return nn.Sequential(layer(a, b, kernel, stride, kernel // 2, bias=False), norm(b), nn.SiLU())


class UNet(nn.Module):
    """Skips by concatenation; up by transposed convolution."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), rank: int = 2, inputs: int = 1, classes: int = 4):
        super().__init__()
        up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2)
        self.down = nn.ModuleList(self._double(a, b, rank) for a, b in zip((inputs, *widths), widths, strict=False))
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(up(a, b, 2, 2) for a, b in steps)
        self.join = nn.ModuleList(self._double(2 * b, b, rank) for _, b in steps)
        self.head = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](widths[0], classes, 1)

    @staticmethod
    def _double(a: int, b: int, rank: int) -> nn.Sequential:
        return nn.Sequential(conv(a, b, rank=rank), conv(b, b, rank=rank))

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.head(x)


class MedicalUNet(nn.Module):
    """3-D, residual, with instance norms, leaky units, strided convolutions and deep supervision in training."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32)):
        super().__init__()
        self.encode = nn.ModuleList(self._block(a, b, 1 if a == 1 else 2) for a, b in
                                    zip((1, *widths), widths, strict=False))
        self.shortcut = nn.ModuleList(nn.Conv3d(a, b, 1, 1 if a == 1 else 2) for a, b in
                                      zip((1, *widths), widths, strict=False))
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.reduce = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in steps)
        self.decode = nn.ModuleList(self._block(b, b, 1) for _, b in steps)
        self.heads = nn.ModuleList(nn.Conv3d(b, 3, 1) for _, b in steps)

    @staticmethod
    def _block(a: int, b: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv3d(a, b, 3, stride, 1), nn.InstanceNorm3d(b, affine=True), nn.LeakyReLU(0.01),
                             nn.Conv3d(b, b, 3, 1, 1), nn.InstanceNorm3d(b, affine=True))

    def forward(self, x):
        skips = []
        for block, shortcut in zip(self.encode, self.shortcut, strict=True):
            x = F.leaky_relu(block(x) + shortcut(x))
            skips.append(x)
        outs = []
        for reduce, block, head, skip in zip(self.reduce, self.decode, self.heads, skips[-2::-1], strict=True):
            x = F.interpolate(reduce(x), size=skip.shape[2:], mode="trilinear", align_corners=False) + skip
            x = block(x) + x
            outs.append(head(x))
        return outs if self.training else outs[-1]


class FPN(nn.Module):
    """A residual trunk with a top-down pyramid and a head that all levels share."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), out: int = 24):
        super().__init__()
        self.trunk = nn.ModuleList(conv(a, b, stride=2) for a, b in zip((3, *widths), widths, strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(w, out, 1) for w in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1) for _ in widths)
        self.head = nn.Sequential(nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(4, out), nn.ReLU(),
                                  nn.Conv2d(out, 5, 1))

    def forward(self, x):
        levels = []
        for stage in self.trunk:
            x = stage(x)
            levels.append(x)
        tops = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for i in range(len(tops) - 1, 0, -1):
            tops[i - 1] = tops[i - 1] + F.interpolate(tops[i], size=tops[i - 1].shape[-2:], mode="nearest")
        return OrderedDict((f"p{i}", self.head(s(t))) for i, (s, t) in enumerate(zip(self.smooth, tops, strict=True)))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool = True):
        super().__init__()
        self.a, self.b, self.shortcut = conv(width, width), conv(width, width), shortcut

    def forward(self, x):
        return x + self.b(self.a(x)) if self.shortcut else self.b(self.a(x))


class C2f(nn.Module):
    """One convolution split in two, a chain of bottlenecks on the second half, everything concatenated."""

    def __init__(self, a: int, b: int, n: int = 2):
        super().__init__()
        self.half = b // 2
        self.first, self.last = conv(a, b, 1), conv((2 + n) * self.half, b, 1)
        self.chain = nn.ModuleList(Bottleneck(self.half) for _ in range(n))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.chain)
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Pooled three times in a row, all of it concatenated."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.first, self.last, self.pool = conv(a, a // 2, 1), conv(a * 2, b, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.first(x)]
        parts.extend(self.pool(parts[-1]) for _ in range(3))
        return self.last(torch.cat(parts, 1))


class ELAN(nn.Module):
    """Two branches, one of them a chain, every second output concatenated."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.one, self.two = conv(a, b // 2, 1), conv(a, b // 2, 1)
        self.chain = nn.ModuleList(nn.Sequential(conv(b // 2, b // 2), conv(b // 2, b // 2)) for _ in range(2))
        self.last = conv(2 * b, b, 1)

    def forward(self, x):
        parts = [self.one(x), self.two(x)]
        for block in self.chain:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detect(nn.Module):
    """A decoupled head with distribution focal bins, decoded in inference, raw in training."""

    def __init__(self, widths: tuple[int, ...], classes: int = 6, bins: int = 4):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.box = nn.ModuleList(nn.Sequential(conv(w, 16), nn.Conv2d(16, 4 * bins, 1)) for w in widths)
        self.cls = nn.ModuleList(nn.Sequential(conv(w, 16), nn.Conv2d(16, classes, 1)) for w in widths)
        self.register_buffer("project", torch.arange(bins, dtype=torch.float))

    def forward(self, levels):
        raw = [torch.cat([box(x), cls(x)], 1) for box, cls, x in zip(self.box, self.cls, levels, strict=True)]
        if self.training:
            return raw
        flat = torch.cat([x.view(x.shape[0], 4 * self.bins + self.classes, -1) for x in raw], 2)
        box, cls = flat.split((4 * self.bins, self.classes), 1)
        batch, _, anchors = box.shape
        box = (box.view(batch, 4, self.bins, anchors).softmax(2) * self.project.view(1, 1, -1, 1)).sum(2)
        return torch.cat([box, cls.sigmoid()], 1), raw


class YOLO(nn.Module):
    """C2f or ELAN stages, SPPF, a path up and a path down, and the head over three levels."""

    def __init__(self, block: type[nn.Module]):
        super().__init__()
        self.stem, self.s1 = conv(3, 8, 3, 2), nn.Sequential(conv(8, 16, 3, 2), block(16, 16))
        self.s2, self.s3 = nn.Sequential(conv(16, 32, 3, 2), block(32, 32)), nn.Sequential(conv(32, 48, 3, 2),
                                                                                        block(48, 48), SPPF(48, 48))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.u2, self.u1 = block(80, 32), block(48, 16)
        self.down1, self.d2 = conv(16, 16, 3, 2), block(48, 32)
        self.down2, self.d3 = conv(32, 32, 3, 2), block(80, 48)
        self.head = Detect((16, 32, 48))

    def forward(self, x):
        p1 = self.s1(self.stem(x))
        p2 = self.s2(p1)
        p3 = self.s3(p2)
        t2 = self.u2(torch.cat([self.up(p3), p2], 1))
        t1 = self.u1(torch.cat([self.up(t2), p1], 1))
        t2 = self.d2(torch.cat([self.down1(t1), t2], 1))
        t3 = self.d3(torch.cat([self.down2(t2), p3], 1))
        return self.head([t1, t2, t3])


CASES = {
    "unet_2d": lambda: (UNet(), (torch.rand(2, 1, 32, 32),)),
    "unet_3d": lambda: (UNet((8, 16, 32), 3), (torch.rand(2, 1, 8, 16, 16),)),
    "unet_3d_residual": lambda: (MedicalUNet(), (torch.rand(2, 1, 8, 16, 16),)),
    "fpn": lambda: (FPN(), (torch.rand(2, 3, 32, 32),)),
    "yolo_c2f": lambda: (YOLO(C2f), (torch.rand(2, 3, 64, 64),)),
    "yolo_elan": lambda: (YOLO(ELAN), (torch.rand(2, 3, 64, 64),)),
}
