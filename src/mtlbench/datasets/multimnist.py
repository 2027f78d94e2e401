"""MultiMNIST: two digits laid over each other, one task for each (Sener & Koltun 2018, Sections 4.1 and C.1).

Licence: MNIST (Yann LeCun and Corinna Cortes) is commonly given as CC BY-SA 3.0. There is no download of MultiMNIST:
it is made here from MNIST's four IDX files, packed (.gz) or not, under <machine.data>/mnist, or where torchvision puts
them: `torchvision.datasets.MNIST("<machine.data>", download=True)`.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.dataset import Batch, MultiTaskDataset, Split, select_tasks
from mtlbench.datasets.idx import MNIST, SIDE, Digits, Source, read_digits
from mtlbench.losses import CrossEntropy
from mtlbench.metrics import Accuracy
from mtlbench.seeds import seed_of
from mtlbench.task import Task

CANVAS, OFFSET = 36, 6
MEAN, DEVIATION = 0.1307, 0.3081


def hold_out(digits: Digits, count: int, rng: np.random.Generator) -> tuple[Digits, Digits]:
    """(kept, held out): `count` digits drawn at random, every class in its share to within one digit."""
    order = rng.permutation(len(digits.labels))
    order = order[np.argsort(digits.labels[order], kind="stable")]
    held = np.zeros(len(order), dtype=bool)
    held[order[((np.arange(count) + 0.5) * len(order) / max(count, 1)).astype(int)]] = True
    return digits.take(np.flatnonzero(~held)), digits.take(np.flatnonzero(held))


def draw_pairs(digits: int, pairs: int, rng: np.random.Generator, allow_same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices (left, right) [pairs]: left takes each digit in turn, right is drawn uniformly from the others.

    With allow_same a digit may meet itself, as in the authors' code; the paper says "a different one".
    """
    left = np.arange(pairs) % digits
    if allow_same:
        return left, rng.integers(0, digits, pairs)
    right = rng.integers(0, digits - 1, pairs)
    return left, right + (right >= left)


def overlay(images: np.ndarray, left: np.ndarray, right: np.ndarray, stretch: bool) -> np.ndarray:
    """Pairs [P, 28, 28] uint8 of images [N, 28, 28] uint8, by indices left and right [P].

    The left digit at rows and columns 0..27 of a 36 x 36 canvas, the right one at 6..33, the larger value where
    they overlap, then nearest-neighbour resizing to 28 x 28. `stretch` scales each pair so that its largest
    value is 255: what the authors' image library (scipy.misc.imresize of a float image) did unasked.
    """
    nearest = ((np.arange(SIDE) + 0.5) * CANVAS / SIDE).astype(int)

    def placed(offset: int) -> np.ndarray:  # nearest picks pixels, so each digit can be resized before the maximum
        canvas = np.zeros((len(images), CANVAS, CANVAS), dtype=np.uint8)
        canvas[:, offset : offset + SIDE, offset : offset + SIDE] = images
        return canvas[:, nearest[:, None], nearest]

    pairs = np.maximum(placed(0)[left], placed(OFFSET)[right])
    if stretch:
        brightest = images.max(axis=(1, 2), initial=0)
        largest = np.maximum(brightest[left], brightest[right]).astype(float)
        dim = np.flatnonzero((largest > 0) & (largest < 255))
        pairs[dim] = (pairs[dim] * (255 / largest[dim, None, None]) + 0.5).astype(np.uint8)
    return pairs


class Pairs(Split):
    """Pairs held in memory. image [1, 28, 28] = (x / 255 - 0.1307) / 0.3081; targets: class indices 0 to 9."""

    def __init__(self, images: np.ndarray, targets: dict[str, np.ndarray]):
        self.images = torch.from_numpy(images)
        self.targets = {name: torch.from_numpy(labels).long() for name, labels in targets.items()}

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        indices = torch.tensor([index for _, index in keys])
        image = self.images[indices].float().div_(255).sub_(MEAN).div_(DEVIATION).unsqueeze(1)
        return Batch(image, {name: target[indices] for name, target in self.targets.items()})

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self.__getitems__([key])
        return batch.image[0], {name: target[0] for name, target in batch.targets.items()}


class OverlaidDigits(MultiTaskDataset):
    """Pairs of digits from any source of 28 x 28 digits; tasks "left" (top-left digit) and "right".

    construction_seed: decides which digits are held out and who is paired with whom; each part has its own draw.
    stretch, allow_same: see `overlay` and `draw_pairs`.
    """

    name: ClassVar[str]
    things: ClassVar[str] = "digits"

    image_shape = (1, 28, 28)

    def __init__(
        self,
        folder: Path,
        seed: int,
        tasks: Sequence[str] | None,
        construction_seed: int,
        stretch: bool,
        allow_same: bool,
    ):
        available = {name: Task(name, 10, CrossEntropy(), [Accuracy()], "vector") for name in ("left", "right")}
        self.tasks = select_tasks(available, tasks, self.name)
        self.folder = Path(folder)
        self.construction_seed, self.stretch, self.allow_same = construction_seed, stretch, allow_same

    @property
    @abstractmethod
    def source(self) -> tuple[Digits, ...]:
        """All digits, as read."""

    @abstractmethod
    def part(self, name: str) -> tuple[Digits, int]:
        """The digits of one part of the data, and how many pairs to make of them."""

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(seed_of(self.construction_seed, purpose))

    def split(self, name: str) -> Pairs | None:
        digits, count = self.part(name)
        if count == 0:
            return None
        if len(digits.labels) < (1 if self.allow_same else 2):
            raise ValueError(
                f"{self.name}: the {name} part has {len(digits.labels)} {self.things}, "
                f"and a pair needs two different ones."
            )
        left, right = draw_pairs(len(digits.labels), count, self.rng(f"pairs of {name}"), self.allow_same)
        targets = {"left": digits.labels[left], "right": digits.labels[right]}
        images = overlay(digits.images, left, right, self.stretch)
        return Pairs(images, {task: targets[task] for task in self.tasks})

    def fingerprint(self) -> str:
        """Hash of the pixels and labels, the same for packed and unpacked files. Names and sizes would not tell
        MNIST from its namesakes, whose files are called alike and are as long."""
        digest = hashlib.sha256()
        for digits in self.source:
            digest.update(np.ascontiguousarray(digits.images))
            digest.update(np.ascontiguousarray(digits.labels, dtype=np.int64))
        sizes = "+".join(f"{len(digits.labels)}" for digits in self.source)
        return f"{self.name} {sizes} {self.things} {digest.hexdigest()[:16]}"


class MultiMNIST(OverlaidDigits):
    """Pairs of MNIST digits, from the four IDX files under <machine.data>/mnist or <machine.data>/MNIST/raw.

    Every digit of a part is the left one once. validation: how many training digits are held out, before any are
    paired, as the val part; the paper chooses the learning rate on a validation set and does not say how large, and
    its code validates on the test part. 0 trains on all 60,000 and has no val part.
    """

    name = "multimnist"
    files: ClassVar[Source] = MNIST
    official = MappingProxyType({"train": 60_000, "test": 10_000})

    def __init__(self, *, validation: int, **options: object):
        super().__init__(**options)
        self.validation = validation

    @cached_property
    def source(self) -> tuple[Digits, ...]:
        return tuple(read_digits(self.folder, prefix, self.files) for prefix in ("train", "t10k"))

    def part(self, name: str) -> tuple[Digits, int]:
        train, test = self.source
        if name == "test":
            return test, len(test.labels)
        check_validation(self.validation, len(train.labels), self.things)
        kept, held = hold_out(train, self.validation, self.rng("held out"))
        digits = {"train": kept, "val": held}[name]
        return digits, len(digits.labels)


def check_validation(validation: int, count: int, things: str) -> None:
    if not 0 <= validation < count:
        raise ValueError(
            f"dataset.validation={validation}: there are {count:,} training {things}, "
            f"so it must be from 0 to {count - 1:,}."
        )
