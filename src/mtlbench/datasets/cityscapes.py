"""Cityscapes with three dense tasks: 19 classes, offsets to instance centres, disparity.

The protocol of IMTL (Liu et al. 2021, Appendix D) and of MGDA (Sener & Koltun 2018, Appendix C), from the data set's
own files: {folder}/cityscapes/{leftImg8bit,gtFine,disparity}/{split}/{city}/{city}_{sequence}_{frame}_{suffix}.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torchvision.tv_tensors import Image

from mtlbench.dataset import MultiTaskDataset, Split, select_tasks
from mtlbench.labels import ClassMap, Disparity, InstanceOffset, Label
from mtlbench.losses import L1, MSE, CrossEntropy, Loss, Scaled
from mtlbench.metrics import Confusion, MeanAbsoluteError, MeanSquaredError
from mtlbench.seeds import seed_of
from mtlbench.sliding import Sliding
from mtlbench.task import IGNORE, Task
from mtlbench.transforms import Augmentation, normalise, see, whole

TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids of the 19 classes, in the order of their trainIds; all others are not evaluated."""

THINGS = range(24, 34)
"""The ids of classes with instances; caravan (29) and trailer (30) are not among the 19."""

IMAGES = ("leftImg8bit", "leftImg8bit")
LABELS = {
    "semantic": ("gtFine", "gtFine_labelIds"),
    "instance": ("gtFine", "gtFine_instanceIds"),
    "disparity": ("disparity", "disparity"),
}
"""{task: (folder, end of the file's name)}"""


class Frame(NamedTuple):
    """One image: its part of the data, and the names of its files without their ends."""

    split: str
    city: str
    stem: str


class Cityscapes(MultiTaskDataset):
    """The training images as "train", the official validation images (500) as "test"; the official test labels are
    withheld, so that papers report on these.

    tasks: names among semantic, instance, disparity; null for all. Files of other tasks are never read.
    size: [height, width] of the whole images, null for full resolution. Labels are sampled; disparity and offsets
        are in pixels of that size, and so are their errors.
    augmentation: of training images, see `transforms.Augmentation`.
    evaluation: crops and flips of evaluation, see `sliding.Sliding`.
    validation: this many training images are held out as "val" (MGDA: 275 while searching for a rate; Elich
        et al. 2023: 595; IMTL: 0). Which ones depends on `validation_seed` alone.
    crowd: "ignore", or "instance": all of a crowd region of one class is one instance (MGDA's code). IMTL unsaid.
    unevaluated: "ignore" offsets in caravans and trailers (MGDA's code), or "instance". IMTL unsaid.
    regression: "l1" (IMTL, MGDA's code) or "mse" (MGDA's paper; its metric is then reported besides).
    reduction: of both regressions' losses and metrics, over "components" or "pixels" (channels are added). Unsaid.
    absent: what mIoU does with a class found neither in labels nor predictions: skip, nan or zero.
    semantic_scale: factor on the segmentation loss, before any method sees it (10 in IMTL's test of robustness).

    Targets: semantic [H, W] uint8, IGNORE where no class of the 19; instance [2, H, W], (dx, dy) from the pixel to
    the mean of its instance's pixels, so that pixel + offset = centre as IMTL's decoding needs it (MGDA's code has
    the opposite sign); disparity [1, H, W] = (p - 1) / 256 at full resolution, unknown where p = 0.
    Raises ValueError for missing folders and files, with the file's name for a broken one or one of another size.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        augmentation: Augmentation,
        evaluation: Sliding,
        tasks: Sequence[str] | None = None,
        size: Sequence[int] | None = None,
        validation: int = 0,
        validation_seed: int = 0,
        crowd: str = "ignore",
        unevaluated: str = "ignore",
        regression: str = "l1",
        reduction: str = "components",
        absent: str = "skip",
        semantic_scale: float = 1.0,
    ):
        _check("crowd", crowd, ("ignore", "instance"))
        _check("unevaluated", unevaluated, ("ignore", "instance"))
        _check("regression", regression, ("l1", "mse"))
        _check("reduction", reduction, ("components", "pixels"))
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"dataset.size={size}: [height, width] or null is expected.")
        self.folder, self.seed = Path(folder) / "cityscapes", seed
        self.augmentation, self.evaluation = augmentation, evaluation
        self.size = tuple(size) if size else None
        self.tasks = select_tasks(_tasks(regression, reduction, absent, semantic_scale), tasks, "cityscapes")
        self.readers = {name: reader for name, reader in _readers(crowd, unevaluated).items() if name in self.tasks}
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        self.files: dict[str, int] = {}  # every file that is read, by its name below the folder, and its size
        trained, self.tested = self._frames("train"), self._frames("val")
        if not 0 <= validation < len(trained):
            raise ValueError(
                f"dataset.validation={validation}: 0 to {len(trained) - 1} of the {len(trained):,} training images "
                f"can be held out."
            )
        generator = torch.Generator().manual_seed(seed_of("cityscapes", "validation", validation_seed))
        held = set(torch.randperm(len(trained), generator=generator)[:validation].tolist())
        self.trained = [frame for i, frame in enumerate(trained) if i not in held]
        self.held = [frame for i, frame in enumerate(trained) if i in held]

    def split(self, name: str) -> Split | None:
        frames = {"train": self.trained, "val": self.held, "test": self.tested}[name]
        return CityscapesSplit(self, frames, augmented=name == "train") if frames else None

    def predict(self, model: nn.Module, image: Tensor) -> dict[str, Tensor]:
        return self.evaluation(model, image, self.tasks, classes=("semantic",))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        if self.synthetic:
            digest.update((self.folder / "SYNTHETIC.json").read_bytes())
        for name, size in sorted(self.files.items()):
            digest.update(f"{name}\0{size}\n".encode())
        return f"{'synthetic ' if self.synthetic else ''}cityscapes {digest.hexdigest()[:16]}"

    def path(self, frame: Frame, kind: tuple[str, str]) -> Path:
        return self.folder / kind[0] / frame.split / frame.city / f"{frame.stem}_{kind[1]}.png"

    def _frames(self, split: str) -> list[Frame]:
        """All images of one part, by (city, sequence, frame); notes the files. Raises ValueError if one is missing."""
        images = self._listed(split, IMAGES)
        if not images:
            raise ValueError(
                f"cityscapes: no images under {self.folder / IMAGES[0] / split}.\n"
                f"Put the dataset there, set machine.data=<folder>, or write a small synthetic one:\n"
                f"  python -m mtlbench.synthesize dataset=cityscapes machine.data={self.folder.parent}"
            )
        frames = sorted(images, key=lambda frame: (frame.city, *map(int, frame.stem.rsplit("_", 2)[1:])))
        for name in self.tasks:
            labels = self._listed(split, LABELS[name])
            missing = [frame for frame in frames if frame not in labels]
            if missing:
                raise ValueError(
                    f"cityscapes: {self.path(missing[0], LABELS[name])} is missing, the {name} label of an image"
                    f"{f' ({len(missing):,} are)' if len(missing) > 1 else ''}.\n"
                    f"Unpack the package {LABELS[name][0]}_trainvaltest.zip there, or leave the task out with "
                    f"dataset.tasks=[...]."
                )
            self._note(LABELS[name], {frame: labels[frame] for frame in frames})
        self._note(IMAGES, images)
        return frames

    def _listed(self, split: str, kind: tuple[str, str]) -> dict[Frame, int]:
        """The files of one kind and their sizes; others in the same folders are passed over."""
        top = self.folder / kind[0] / split
        pattern = re.compile(rf"(.+_\d+_\d+)_{kind[1]}\.png")
        found = {}
        for city in _entries(top):
            for entry in _entries(city.path) if city.is_dir() else ():
                match = pattern.fullmatch(entry.name)
                if match and not entry.name.startswith("."):
                    found[Frame(split, city.name, match[1])] = entry.stat().st_size
        return found

    def _note(self, kind: tuple[str, str], sizes: dict[Frame, int]) -> None:
        for frame, size in sizes.items():
            self.files[self.path(frame, kind).relative_to(self.folder).as_posix()] = size


class CityscapesSplit(Split):
    """Images of one part; an item is (image [3, H, W] float32, normalised; {task: target})."""

    def __init__(self, dataset: Cityscapes, frames: Sequence[Frame], augmented: bool):
        self.dataset, self.frames, self.augmented = dataset, frames, augmented

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index = key
        image, labels = self.read(index)
        if self.augmented:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator and takes no other
                torch.manual_seed(seed_of(self.dataset.seed, "augment", epoch, index))
                image, labels = self.dataset.augmentation(image, labels, self.dataset.size)
        else:
            view = whole(image, self.dataset.size)
            image, labels = see(image, view), {name: see(label, view) for name, label in labels.items()}
        return normalise(image), {name: label.as_subclass(Tensor).contiguous() for name, label in labels.items()}

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] uint8 and labels at full resolution, as they are on disk."""
        frame, data = self.frames[index], self.dataset
        path = data.path(frame, IMAGES)
        pixels = read_png(path, "RGB")
        labels = {}
        for name, reader in data.readers.items():
            stored = read_png(data.path(frame, LABELS[name]))
            if stored.shape != pixels.shape[:2]:
                raise ValueError(
                    f"{data.path(frame, LABELS[name])}: {_shape(stored)} is not the size of its image, "
                    f"{_shape(pixels)} ({path})."
                )
            labels[name] = reader(stored)
        return Image(torch.from_numpy(pixels).permute(2, 0, 1)), labels


def read_png(path: Path, mode: str | None = None) -> np.ndarray:
    """A PNG as an array [H, W] (int32: 8 or 16 bit alike) or, for mode RGB, [H, W, 3] uint8.

    16-bit greys go through numpy: their mode differs between versions of Pillow, and torchvision's older
    functions make numbers above 32767 negative. Raises ValueError that names a missing or broken file.
    """
    try:
        with PIL.Image.open(path) as image:
            pixels = np.array(image.convert(mode)) if mode else np.asarray(image).astype(np.int32)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises, by where the file breaks off
        raise ValueError(f"{path}: this PNG cannot be read ({error}). Unpack or download it again.") from error
    if mode is None and pixels.ndim != 2:
        raise ValueError(f"{path}: one grey channel is expected, found {pixels.shape[2]} channels.")
    return pixels


def class_map(stored: np.ndarray) -> ClassMap:
    """labelIds [H, W] to the 19 trainIds; all other ids to IGNORE."""
    return ClassMap(torch.from_numpy(TRAIN_IDS[stored]))


def disparity(stored: np.ndarray) -> Disparity:
    """p [H, W] to (p - 1) / 256 pixels; p = 0 is unknown, p = 1 a measured disparity of 0."""
    pixels = (stored.astype(np.float32) - 1) / 256
    return Disparity(torch.from_numpy(np.where(stored > 0, pixels, np.float32(np.nan)))[None])


def instance_offset(stored: np.ndarray, instances: np.ndarray) -> InstanceOffset:
    """instanceIds [H, W] to the offsets to the mean pixel of each; `instances` [65536]: which values are one."""
    height, width = stored.shape
    where = np.flatnonzero(instances[stored])
    ids = stored.ravel()[where]
    points = np.stack([where % width, where // width])  # x, y
    count = np.maximum(np.bincount(ids), 1)
    offsets = np.full((2, height * width), np.nan, dtype=np.float32)
    for i, coordinate in enumerate(points):
        offsets[i, where] = (np.bincount(ids, coordinate) / count)[ids] - coordinate
    return InstanceOffset(torch.from_numpy(offsets.reshape(2, height, width)))


TRAIN_IDS = np.full(65536, IGNORE, dtype=np.uint8)
TRAIN_IDS[list(TRAINED)] = range(len(TRAINED))


def instance_values(crowd: str, unevaluated: str) -> np.ndarray:
    """Which stored numbers of instanceIds are instances, [65536] bool: id * 1000 + k, a crowd region the id alone."""
    values = np.arange(65536)
    single = values >= 1000
    ids = np.where(single, values // 1000, values)
    things = [i for i in THINGS if i in TRAINED or unevaluated == "instance"]
    return np.isin(ids, things) & (single | (crowd == "instance"))


def _readers(crowd: str, unevaluated: str) -> dict[str, Callable[[np.ndarray], Label]]:
    instances = instance_values(crowd, unevaluated)
    return {
        "semantic": class_map,
        "instance": partial(instance_offset, instances=instances),
        "disparity": disparity,
    }


def _tasks(regression: str, reduction: str, absent: str, semantic_scale: float) -> dict[str, Task]:
    def regressed(name: str, channels: int, unflip: Callable[[Tensor], Tensor] | None = None) -> Task:
        loss: Loss = {"l1": L1, "mse": MSE}[regression](reduction)
        meters = [MeanAbsoluteError("px", reduction=reduction)]
        if regression == "mse":
            meters.append(MeanSquaredError("px²", reduction=reduction))
        return Task(name, channels, loss, meters, unflip=unflip)

    classes = len(TRAINED)
    loss: Loss = CrossEntropy() if semantic_scale == 1 else Scaled(CrossEntropy(), semantic_scale)
    return {
        "semantic": Task("semantic", classes, loss, [Confusion(classes, absent=absent)]),
        "instance": regressed("instance", 2, unflip=negate_dx),
        "disparity": regressed("disparity", 1),
    }


def negate_dx(offsets: Tensor) -> Tensor:
    """Offsets [B, 2, H, W] of a mirrored image, mirrored back: dx points the other way."""
    return torch.stack([-offsets[:, 0], offsets[:, 1]], dim=1)


def _check(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"dataset.{key}={value}: {' or '.join(allowed)} is expected.")


def _entries(folder: str | Path) -> list[os.DirEntry]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return list(entries)


def _shape(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"
