"""Cityscapes with three dense tasks: 19 classes, offsets to instance centres, disparity.

Licence: free for research and education that are not commercial, after registration at cityscapes-dataset.com. Unpack
leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip and disparity_trainvaltest.zip into <machine.data>/cityscapes.
`python -m mtlbench.synthesize dataset=cityscapes` writes a small synthetic set.

The protocol of IMTL (Liu et al. 2021, Appendix D) and of MGDA (Sener & Koltun 2018, Appendix C), from the data set's
own files: {folder}/cityscapes/{leftImg8bit,gtFine,disparity}/{split}/{city}/{city}_{sequence}_{frame}_{suffix}.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from mtlbench.cache import ImageFiles
from mtlbench.dataset import Split, select_tasks
from mtlbench.datasets.dense import MapDataset, check_size, drawing, fingerprint, hold_out, unchanged
from mtlbench.images import read_image
from mtlbench.labels import ClassMap, Disparity, InstanceOffset, Label
from mtlbench.losses import L1, MSE, CrossEntropy, Loss, Scaled
from mtlbench.metrics import Confusion, MeanAbsoluteError, MeanSquaredError
from mtlbench.sliding import Sliding
from mtlbench.task import IGNORE, Task
from mtlbench.transforms import Augmentation, needed, normalise

TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids of the 19 classes, in the order of their trainIds; all others are not evaluated."""

NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
COLOURS = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
    *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0)),
    *((0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
"""Of the 19 classes, as in the authors' figures."""

THINGS = range(24, 34)
"""The ids of classes with instances; caravan (29) and trailer (30) are not among the 19."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""

WHOLE: Window = (slice(None), slice(None))

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


class Cityscapes(MapDataset):
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

    image_shape = (3, 1024, 2048)

    official = MappingProxyType({"train": 2975, "test": 500})
    words = MappingProxyType({"semantic": NAMES})
    colours = MappingProxyType({"semantic": COLOURS})

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
        self.folder, self.seed = Path(folder) / "cityscapes", seed
        self.augmentation, self.evaluation = augmentation, evaluation
        self.size = check_size(size)
        self.tasks = select_tasks(_tasks(regression, reduction, absent, semantic_scale), tasks, "cityscapes")
        self.readers = {name: reader for name, reader in _readers(crowd, unevaluated).items() if name in self.tasks}
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        self.files: dict[str, int] = {}  # every file that is read, by its name below the folder, and its size
        trained, self.tested = self._frames("train"), self._frames("val")
        self._group_files([*trained, *self.tested])
        self.trained, self.held = hold_out("cityscapes", trained, validation, validation_seed)

    def _group_files(self, frames: Sequence[Frame]) -> None:
        self.image_files = ImageFiles("cityscapes", self.folder)
        self.photos = self.image_files.group(
            IMAGES[1], [self.path(frame, IMAGES) for frame in frames], partial(read_image, mode="RGB")
        )
        self.stored = {
            name: self.image_files.group(
                LABELS[name][1], [self.path(frame, LABELS[name]) for frame in frames], read_image
            )
            for name in self.readers
        }

    def split(self, name: str) -> Split | None:
        frames = {"train": self.trained, "val": self.held, "test": self.tested}[name]
        return CityscapesSplit(self, frames, augmented=name == "train") if frames else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint("cityscapes", self.folder, self.files)

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
        data = self.dataset
        if self.augmented:
            pixels, stored = self._stored(index)
            with drawing(data.seed, epoch, index):
                view, blurred = data.augmentation.draw(pixels.shape[:2], data.size)
            view, window = needed(view, pixels.shape[:2])  # what is not seen is not converted
            image, labels = data.augmentation.apply(*self._converted(pixels, stored, window), view, blurred)
        else:
            image, labels = unchanged(*self.read(index), data.size)
        return normalise(image), {name: label.as_subclass(Tensor).contiguous() for name, label in labels.items()}

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] uint8 and labels at full resolution, as they are on disk."""
        return self._converted(*self._stored(index), WHOLE)

    def _stored(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        frame, data = self.frames[index], self.dataset
        path = data.path(frame, IMAGES)
        pixels = data.photos(path)
        stored = {name: files(data.path(frame, LABELS[name])) for name, files in data.stored.items()}
        for name, values in stored.items():
            if values.shape != pixels.shape[:2]:
                raise ValueError(
                    f"{data.path(frame, LABELS[name])}: {_shape(values)} is not the size of its image, "
                    f"{_shape(pixels)} ({path})."
                )
        return pixels, stored

    def _converted(
        self, pixels: np.ndarray, stored: Mapping[str, np.ndarray], window: Window
    ) -> tuple[Image, dict[str, Label]]:
        labels = {name: reader(stored[name], window) for name, reader in self.dataset.readers.items()}
        cut = np.ascontiguousarray(pixels[window].transpose(2, 0, 1))
        return Image(torch.from_numpy(cut if cut.flags.writeable else cut.copy())), labels


def class_map(stored: np.ndarray, window: Window = WHOLE) -> ClassMap:
    """labelIds [H, W] to the 19 trainIds, in a window of the image; all other ids to IGNORE."""
    return ClassMap(torch.from_numpy(TRAIN_IDS[stored[window]]))


def disparity(stored: np.ndarray, window: Window = WHOLE) -> Disparity:
    """p [H, W] to (p - 1) / 256 pixels in a window; p = 0 is unknown, p = 1 a measured disparity of 0."""
    cut = stored[window]
    pixels = (cut.astype(np.float32) - 1) / 256
    pixels[cut == 0] = np.nan
    return Disparity(torch.from_numpy(pixels)[None])


def instance_offset(stored: np.ndarray, window: Window = WHOLE, *, instances: np.ndarray) -> InstanceOffset:
    """instanceIds [H, W] to the offsets to the mean pixel of each, in a window of the image.

    `instances` [65536]: which values are one. The mean is of all its pixels, also those outside of the window.
    """
    stored = np.asarray(stored)
    where = np.flatnonzero(instances[stored])
    ids = stored.ravel()[where]
    count = np.maximum(np.bincount(ids), 1)
    y, x = np.divmod(where.astype(np.int32), stored.shape[1])
    means = [np.bincount(ids, coordinate) / count for coordinate in (x, y)]
    cut = stored[window]
    place = np.nonzero(instances[cut])
    ids = cut[place]
    offsets = np.full((2, *cut.shape), np.nan, dtype=np.float32)
    for i, axis in enumerate((1, 0)):
        first, here = np.float32(window[axis].start or 0), place[axis].astype(np.float32)
        offset = (means[i][ids] - (here + first)).astype(np.float32)
        if cut.shape != stored.shape:  # rounded as by a crop of the whole image's offsets
            offset = offset + (here + first) - first - here
        offsets[i][place] = offset
    return InstanceOffset(torch.from_numpy(offsets))


TRAIN_IDS = np.full(65536, IGNORE, dtype=np.uint8)
TRAIN_IDS[list(TRAINED)] = range(len(TRAINED))


def instance_values(crowd: str, unevaluated: str) -> np.ndarray:
    """Which stored numbers of instanceIds are instances, [65536] bool: id * 1000 + k, a crowd region the id alone."""
    values = np.arange(65536)
    single = values >= 1000
    ids = np.where(single, values // 1000, values)
    things = [i for i in THINGS if i in TRAINED or unevaluated == "instance"]
    return np.isin(ids, things) & (single | (crowd == "instance"))


def _readers(crowd: str, unevaluated: str) -> dict[str, Callable[[np.ndarray, Window], Label]]:
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
