"""ImageNet, as it usually lies on disks: a folder of folders, or WebDataset shards; each rank reads its part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def training_transform(size: int) -> v2.Transform:
    return v2.Compose([v2.ToImage(), v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(),
                       *_numbers()])


def test_transform(size: int) -> v2.Transform:
    """The middle of the picture, after its shorter side was made 256 / 224 of the crop."""
    return v2.Compose([v2.ToImage(), v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size),
                       *_numbers()])


def _numbers() -> list[v2.Transform]:
    return [v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


class Data(Protocol):
    """Batches of (images [N, 3, H, W], labels [N]) for this rank.

    Every rank gets the same number of training batches, so that none waits for a batch that another does not have;
    test images are split without repeating any.
    """

    classes: int
    steps: int

    def training(self, epoch: int) -> Iterable[tuple[Tensor, Tensor]]: ...

    def test(self) -> Iterable[tuple[Tensor, Tensor]]: ...


class Folder:
    """``train/<class>/*.jpeg`` and ``val/<class>/*.jpeg``.

    Args:
        path: the folder that holds both.
        size: pixels a side, as the network gets them.
        batch: images a step, of all ranks together.
        workers: processes that decode, a rank.
    """

    def __init__(self, path: Path, size: int, batch: int, workers: int):
        for part in ("train", "val"):
            if not (path / part).is_dir():
                raise SystemExit(f"--data: {path} must hold the folders train and val, and has no {part}")
        train = ImageFolder(str(path / "train"), training_transform(size))
        test = ImageFolder(str(path / "val"), test_transform(size))
        if test.classes != train.classes:
            raise SystemExit(f"--data: train has {len(train.classes)} classes and val {len(test.classes)}, or others")
        self.classes, self._workers, self._batch = len(train.classes), workers, batch // world()
        self._sampler: DistributedSampler[Any] = DistributedSampler(train, world(), rank(), drop_last=True)
        self._train, self._test = train, Subset(test, range(rank(), len(test), world()))
        self.steps = len(self._sampler) // self._batch
        if not self.steps:
            raise SystemExit(f"--batch-size {batch} is more than the {len(train)} images; write a smaller one")

    def training(self, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        self._sampler.set_epoch(epoch)
        return DataLoader(self._train, self._batch, sampler=self._sampler, num_workers=self._workers, drop_last=True,
                          pin_memory=torch.cuda.is_available())

    def test(self) -> Iterable[tuple[Tensor, Tensor]]:
        return DataLoader(self._test, self._batch, num_workers=self._workers, pin_memory=torch.cuda.is_available())


@dataclass(frozen=True)
class Shards:
    """WebDataset shards, ``train-{000..146}.tar`` and ``val-{000..006}.tar``, of .jpg (or .png) and .cls files.

    A shard's length is not known before it is read, so that ``images`` says how many an epoch has, and ``classes`` how
    many classes there are.
    """

    train_urls: str
    test_urls: str
    images: int
    classes: int
    size: int
    batch: int
    workers: int

    @property
    def steps(self) -> int:
        return math.ceil(self.images / self.batch)

    def training(self, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        wds = _webdataset()
        # Shards are drawn with repetition, so that no rank runs dry; the epoch has as many steps on each.
        data = wds.WebDataset(self.train_urls, resampled=True, seed=1000 * epoch + rank(), shardshuffle=False)
        data = data.shuffle(1000, seed=1000 * epoch + rank())
        loader = wds.WebLoader(self._decoded(data, training_transform(self.size)), batch_size=None,
                               num_workers=self.workers)
        return loader.with_epoch(self.steps)

    def test(self) -> Iterable[tuple[Tensor, Tensor]]:
        wds = _webdataset()
        data = wds.WebDataset(self.test_urls, shardshuffle=False, nodesplitter=wds.split_by_node, empty_check=False)
        return wds.WebLoader(self._decoded(data, test_transform(self.size)), batch_size=None,
                             num_workers=self.workers)

    def _decoded(self, data: Any, transform: v2.Transform) -> Any:
        pairs = data.decode("pil").to_tuple("jpg;jpeg;png", "cls").map_tuple(transform, int)
        return pairs.batched(self.batch // world(), collation_fn=_collated)


def _collated(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError:
        raise SystemExit("--train-shards reads WebDataset shards; pip install webdataset") from None
    return webdataset


def endless(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches, one epoch after the other."""
    epoch = 0
    while True:
        yield from data.training(epoch)
        epoch += 1
