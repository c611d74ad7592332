"""Generators and discriminators: DCGAN, ESRGAN, a variational autoencoder, a diffusion U-Net."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def dcgan_generator(z: int = 32, width: int = 16) -> nn.Sequential:
    def up(a: int, b: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
        return [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]

    return nn.Sequential(*up(z, width * 4, 1, 0), *up(width * 4, width * 2), *up(width * 2, width),
                         nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())


def dcgan_discriminator(width: int = 16) -> nn.Sequential:
    def down(a: int, b: int) -> list[nn.Module]:
        layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1))
        return [layer, nn.LeakyReLU(0.2, inplace=True)]

    return nn.Sequential(*down(3, width), *down(width, width * 2), *down(width * 2, width * 4),
                         nn.Conv2d(width * 4, 1, 4), nn.Flatten())


class Dense(nn.Module):
    """Residual dense block: every convolution reads all before it."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4))
        self.last = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x):
        parts = [x]
        for step in self.steps:
            parts.append(F.leaky_relu(step(torch.cat(parts, 1)), 0.2))
        return self.last(torch.cat(parts, 1)) * 0.2 + x


class ESRGAN(nn.Module):
    """Residual in residual dense blocks, then nearest-neighbour and pixel-shuffle upsampling."""

    def __init__(self, width: int = 16, growth: int = 8):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(Dense(width, growth) for _ in range(2)), nn.Conv2d(width, width, 3, padding=1))
        self.up = nn.Conv2d(width, width, 3, padding=1)
        self.shuffle = nn.Sequential(nn.Conv2d(width, width * 4, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(width))
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        x = x + self.body(x)
        x = F.leaky_relu(self.up(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.last(self.shuffle(x))


class VAE(nn.Module):
    def __init__(self, width: int = 16, latent: int = 8):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2, 1),
                                    nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 16, 64), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(64, latent), nn.Linear(64, latent)
        self.grow = nn.Linear(latent, 2 * width * 16)
        self.decode = nn.Sequential(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(),
                                    nn.ConvTranspose2d(width, 3, 4, 2, 1))

    def forward(self, x):
        code = self.encode(x)
        mean, log_variance = self.mean(code), self.log_variance(code)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        grown = self.grow(z)
        return self.decode(grown.view(grown.shape[0], -1, 4, 4)), mean, log_variance


class Timed(nn.Module):
    """A residual block that a time embedding scales and shifts."""

    def __init__(self, a: int, b: int, time: int):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(4, a), nn.Conv2d(a, b, 3, padding=1)
        self.time = nn.Linear(time, 2 * b)
        self.n2, self.c2 = nn.GroupNorm(4, b), nn.Conv2d(b, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x, t):
        h = self.c1(F.silu(self.n1(x)))
        scale, shift = self.time(t)[:, :, None, None].chunk(2, 1)
        h = self.c2(F.silu(self.n2(h) * (1 + scale) + shift))
        return h + self.skip(x)


class Diffusion(nn.Module):
    """A U-Net with sinusoidal times, group norms and self-attention over the pixels of the middle."""

    def __init__(self, width: int = 16, time: int = 32):
        super().__init__()
        self.time_size = time
        self.time = nn.Sequential(nn.Linear(time, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.d1, self.down = Timed(width, width, time), nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.m1, self.m2 = Timed(2 * width, 2 * width, time), Timed(2 * width, 2 * width, time)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.qkv, self.out = nn.Conv2d(2 * width, 6 * width, 1), nn.Conv2d(2 * width, 2 * width, 1)
        self.up, self.u1 = nn.ConvTranspose2d(2 * width, width, 2, 2), Timed(2 * width, width, time)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def attend(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, 4, c // 4, h * w).unbind(1)
        weights = (q.transpose(-2, -1) @ k * (c // 4) ** -0.5).softmax(-1)
        return x + self.out((v @ weights.transpose(-2, -1)).reshape(b, c, h, w))

    def forward(self, x, t):
        half = self.time_size // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
        t = self.time(torch.cat([angles.cos(), angles.sin()], 1))
        skip = self.d1(self.first(x), t)
        x = self.m2(self.attend(self.m1(self.down(skip), t)), t)
        return self.last(self.u1(torch.cat([self.up(x), skip], 1), t))


CASES = {
    "dcgan_generator": lambda: (dcgan_generator(), (torch.rand(2, 32, 1, 1),)),
    "dcgan_discriminator": lambda: (dcgan_discriminator(), (torch.rand(2, 3, 32, 32),)),
    "esrgan_generator": lambda: (ESRGAN(), (torch.rand(1, 3, 12, 12),)),
    "vae": lambda: (VAE(), (torch.rand(2, 3, 16, 16),)),
    "diffusion_unet": lambda: (Diffusion(), (torch.rand(2, 3, 16, 16), torch.rand(2))),
}
