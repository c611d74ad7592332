"""CIFAR-10 as tensors, from a torchvision folder or from one `.npz` file, and its augmentation in batches."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
CLASSES = 10
KEYS = ("train_x", "train_y", "test_x", "test_y")
PAD = 4


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, 32, 32, 3] and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


def load_cifar10(path: str | Path) -> tuple[Split, Split]:
    """The 50,000 training and the 10,000 test images.

    Args:
        path: a `.npz` with uint8 arrays train_x, test_x [N, 32, 32, 3] and labels train_y, test_y [N]; or a folder
            where torchvision keeps CIFAR-10 (the parent of `cifar-10-batches-py`). Nothing is downloaded.

    Raises:
        FileNotFoundError: nothing there, or a folder without the data set.
        ValueError: a file that is not such a `.npz`.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no CIFAR-10 at {path}: give --data a torchvision folder or a .npz with {KEYS}")
    if path.is_dir():
        return _from_torchvision(path)
    return _from_npz(path)


def validation_split(train: Split, count: int = 5000, seed: int = 0) -> tuple[Split, Split]:
    """Training images without `count` of them, and those: 45,000 and 5,000, the same ones for a seed.

    >>> toy = Split(torch.zeros(10, 32, 32, 3, dtype=torch.uint8), torch.arange(10))
    >>> [len(part) for part in validation_split(toy, count=3)]
    [7, 3]
    """
    if not 0 < count < len(train):
        raise ValueError(f"the validation part must have between 1 and {len(train) - 1} images, got count={count}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    # Sorted, so that the rest keeps the data set's own order.
    parts = order[count:].sort().values, order[:count].sort().values
    kept, held_out = (Split(train.images[part], train.labels[part]) for part in parts)
    return kept, held_out


def normalise(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W], zero mean and unit deviation; channels-last in memory, as it came."""
    mean = torch.tensor(MEAN, device=images.device).mul(255).view(1, 3, 1, 1)
    scale = torch.tensor(STD, device=images.device).mul(255).reciprocal().view(1, 3, 1, 1)
    return (images.permute(0, 3, 1, 2).float() - mean) * scale


@dataclass(frozen=True)
class Draw:
    """All chance of one epoch: the order of the images and, by position in it, each crop's shift and mirroring."""

    order: Tensor
    top: Tensor
    left: Tensor
    mirror: Tensor

    @staticmethod
    def of(count: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Draw:
        """Drawn on the CPU whatever the device, so that a seed means the same everywhere."""
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        order = torch.randperm(count, generator=generator)
        top, left = torch.randint(-PAD, PAD + 1, (2, count), generator=generator)
        mirror = torch.rand(count, generator=generator) < 0.5
        return Draw(*(drawn.to(device) for drawn in (order, top, left, mirror)))


def augment(images: Tensor, draw: Draw, batch: slice) -> Tensor:
    """The images of one batch, each shifted by up to PAD pixels (its border reflected) and mirrored or not.

    Args:
        images: uint8 [N, H, W, 3], the whole data set.
        draw: the epoch's chance.
        batch: positions in the epoch's order.

    Returns:
        uint8 [B, H, W, 3].
    """
    count, height, width, channels = images.shape
    rows = _reflect(draw.top[batch, None] + torch.arange(height, device=images.device), height)
    columns = _reflect(draw.left[batch, None] + torch.arange(width, device=images.device), width)
    columns = torch.where(draw.mirror[batch, None], columns.flip(1), columns)
    pixels = (draw.order[batch, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
    return images.reshape(count * height * width, channels)[pixels]


def _from_torchvision(root: Path) -> tuple[Split, Split]:
    try:
        parts = [torchvision.datasets.CIFAR10(str(root), train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{root} holds no intact cifar-10-batches-py; name its parent folder, or download it once with "
            f"torchvision.datasets.CIFAR10({str(root)!r}, download=True)"
        ) from error
    train, test = (_split(np.asarray(part.data), np.asarray(part.targets), str(root)) for part in parts)
    return train, test


def _from_npz(path: Path) -> tuple[Split, Split]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a readable .npz file; it must be one, with the arrays {', '.join(KEYS)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}") from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path} must hold the arrays {', '.join(KEYS)}; missing: {', '.join(missing)}")
    return (
        _split(arrays["train_x"], arrays["train_y"], f"{path}, train"),
        _split(arrays["test_x"], arrays["test_y"], f"{path}, test"),
    )


def _split(x: np.ndarray, y: np.ndarray, where: str) -> Split:
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != (32, 32, 3):
        raise ValueError(f"{where}: images must be uint8 [N, 32, 32, 3], got {x.dtype} {list(x.shape)}")
    if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1]:
        raise ValueError(f"{where}: labels must be integers [{len(x)}], one an image, got {y.dtype} {list(y.shape)}")
    if len(y) == 0 or y.min() < 0 or y.max() >= CLASSES:
        raise ValueError(f"{where}: there must be images, with labels from 0 to {CLASSES - 1}")
    return Split(torch.from_numpy(x.copy()), torch.from_numpy(y.astype(np.int64)))


def _reflect(index: Tensor, size: int) -> Tensor:
    last = size - 1
    return last - (last - index.abs()).abs()
