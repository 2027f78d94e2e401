"""What a dataset file provides; `datasets/*.py` hold the datasets."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from mtlbench.cache import ImageFiles
from mtlbench.task import Task


class Batch(NamedTuple):
    """image [B, C, H, W] float; targets {task: [B, ...]}, IGNORE or NaN where there is no label."""

    image: Tensor
    targets: dict[str, Tensor]


class Split(Dataset, ABC):
    """Images and targets of one part of a dataset.

    A key is (epoch, index): order and augmentation are functions of the run's seed, the epoch and the
    index, never of the worker or of the method. An item is (image, {task: target}).
    A split held in memory may also define `__getitems__(keys) -> Batch`, one gather for a whole batch.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]: ...


class MultiTaskDataset(ABC):
    """A dataset: its tasks and its splits. Constructed by `_target_` with `folder=` (machine.data) and
    `seed=` (the run's, for augmentation only; what is *in* a split never depends on it)."""

    tasks: Mapping[str, Task]
    """Chosen before any file is looked for, so that networks can be made and counted without data."""
    all_tasks: Collection[str] = ()
    """Names of the tasks that `tasks` was chosen from, where a head of one that is not chosen is no mistake."""
    image_shape: ClassVar[tuple[int, int, int] | None] = None
    """(channels, height, width) of the data's own images, before any resizing or crop; None where they differ."""
    synthetic: bool = False
    left_out: Mapping[str, Any] = MappingProxyType({})
    """What of the data is not used because it is missing or damaged: counts, for the record."""
    image_files: ImageFiles | None = None
    """The image files that are read, which `machine.cache` keeps decoded; see `cache`."""
    official: Mapping[str, int] = MappingProxyType({})
    """How many images the parts have as published: "train" with what is held out of it, where there is no "val"."""
    words: Mapping[str, Sequence[str]] = MappingProxyType({})
    """{task: what its classes or numbers are called}, for people."""
    colours: Mapping[str, Sequence[tuple[int, int, int]]] = MappingProxyType({})
    """{task: the colours (R, G, B) in which its classes are known}, for people."""

    @abstractmethod
    def split(self, name: str) -> Split | None:
        """The "train" (augmented), "val" or "test" part; None where the protocol has no such part."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Which data was read: the synthetic marker and a hash of sorted relative names and sizes."""

    def predict(self, model: nn.Module, image: Tensor) -> dict[str, Tensor]:
        """Predictions for evaluation; a protocol with test-time crops or flips overrides it."""
        return model(image)


def collate(items: Sequence | Batch) -> Batch:
    """Items to a Batch of plain tensors; a Batch from `__getitems__` stays as it is."""
    if isinstance(items, Batch):
        return items
    image, targets = default_collate([(image, dict(targets)) for image, targets in items])
    plain = {name: target.as_subclass(torch.Tensor) for name, target in targets.items()}
    return Batch(image.as_subclass(torch.Tensor), plain)


def select_tasks(available: Mapping[str, Task], names: Sequence[str] | None, dataset: str) -> dict[str, Task]:
    """The tasks named by `dataset.tasks`, in the dataset's order; all of them for None.

    Raises ValueError that lists what exists for an unknown or repeated name or an empty list.
    """
    if names is None:
        return dict(available)
    unknown = [name for name in names if name not in available]
    if unknown or not names or len(set(names)) != len(names):
        found = f"unknown: {', '.join(unknown)}" if unknown else f"found: {list(names)}"
        raise ValueError(
            f"dataset.tasks: {dataset} has the tasks {', '.join(available)}; {found}. "
            f"Type for example dataset.tasks=[{next(iter(available))}]."
        )
    return {name: task for name, task in available.items() if name in names}
