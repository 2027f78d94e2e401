"""Trees of numpy arrays, {part}/{kind}/{i}.npy with i from 0: how MTAN's authors pass on Cityscapes and NYUv2."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy import ndarray
from torchvision.tv_tensors import Image

from mtlbench.dataset import Split
from mtlbench.datasets.dense import MapDataset, MapSplit, archive_in, fingerprint
from mtlbench.labels import ClassMap
from mtlbench.task import IGNORE


class NpyTree:
    """One part of a tree. kinds: {what is read: names that its folder may have}, "image" first.

    number: of images; files: {name below the dataset's folder: size} of all that is read.
    Raises ValueError for what is missing, with `obtain` where there is nothing at all.
    """

    def __init__(self, folder: Path, part: str, kinds: Mapping[str, Sequence[str]], obtain: str):
        self.folder, self.part = folder, part
        packed = archive_in(folder)
        if folder.is_file() or (packed and not (folder / part).is_dir()):
            raise ValueError(f"{packed or folder} is a file; unpack it so that {folder / part / 'image'} is a folder.")
        if not (folder / part).is_dir():
            raise ValueError(f"{folder.name}: there is no folder {folder / part}.\n{obtain}")
        self.folders = {kind: self._folder(kind, names) for kind, names in kinds.items()}
        self.files: dict[str, int] = {}
        sizes = {kind: self._sizes(path) for kind, path in self.folders.items()}
        self.number = len(sizes["image"])
        if not self.number:
            raise ValueError(f"{self.folders['image']} holds no files 0.npy, 1.npy ...\n{obtain}")
        for kind, found in sizes.items():
            missing = sorted(set(range(self.number)) - found.keys())
            if missing or len(found) != self.number:
                which = f"{missing[0]}.npy is missing" if missing else f"{max(found)}.npy has no image"
                raise ValueError(
                    f"{self.folders[kind]}: {which}; {len(found):,} files are there and {self.number:,} in "
                    f"{self.folders['image'].name}, where 0.npy to {self.number - 1}.npy are expected in both. "
                    f"Unpack the archive again."
                )

    def _folder(self, kind: str, names: Sequence[str]) -> Path:
        top = self.folder / self.part
        for name in names:
            if (top / name).is_dir():
                return top / name
        there = sorted(entry.name for entry in top.iterdir())
        raise ValueError(
            f"{top}: there is no folder {' or '.join(names)}, which holds the {kind} of an image; found: "
            f"{', '.join(there) or 'nothing'}."
        )

    def _sizes(self, path: Path) -> dict[int, int]:
        """{i: size} of the files i.npy; others are passed over."""
        found = {}
        with os.scandir(path) as entries:
            for entry in entries:
                stem, dot, end = entry.name.partition(".")
                if dot and end == "npy" and stem.isdecimal():
                    found[int(stem)] = size = entry.stat().st_size
                    self.files[f"{self.part}/{path.name}/{entry.name}"] = size
        return found

    def path(self, kind: str, index: int) -> Path:
        return self.folders[kind] / f"{index}.npy"

    def read(self, kind: str, index: int, channels: int, size: tuple[int, int] | None = None) -> ndarray:
        """[H, W] for one channel, whether the file has a third axis or not, else [H, W, channels]; size: what H and W
        must be. Raises ValueError that names the file for one that is no array of numbers or has another shape."""
        path = self.path(kind, index)
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: this array cannot be read ({error}). Unpack or download it again.") from error
        if not isinstance(found, ndarray) or found.dtype.kind not in "fiub":
            kind_of = getattr(found, "dtype", "several arrays")
            raise ValueError(f"{path}: numbers are expected, found {kind_of}.")
        shape = found.shape
        if channels == 1 and found.ndim == 3 and shape[2] == 1:
            found = found[..., 0]
        wanted = 2 if channels == 1 else 3
        if found.ndim != wanted or (channels > 1 and shape[2] != channels):
            raise ValueError(
                f"{path}: height x width x {channels} is expected, found {' x '.join(map(str, shape)) or 'a number'}."
            )
        if size is not None and found.shape[:2] != size:
            raise ValueError(
                f"{path}: {found.shape[0]} x {found.shape[1]} is not the size of its image, {size[0]} x {size[1]} "
                f"({self.path('image', index)})."
            )
        return found

    def image(self, index: int) -> Image:
        """[3, H, W] float32 of 0 to 255, of a file of floats between 0 and 1."""
        found, path = self.read("image", index, 3), self.path("image", index)
        if found.dtype.kind != "f" or not (found.min() >= -1e-4 and found.max() <= 1 + 1e-4):
            told = f"{found.dtype} from {found.min()} to {found.max()}"
            raise ValueError(f"{path}: floats between 0 and 1 are expected, found {told}.")
        pixels = torch.from_numpy(found.astype(np.float32)).permute(2, 0, 1)
        return Image((255 * pixels).contiguous())

    def classes(self, kind: str, index: int, classes: int, size: tuple[int, int]) -> ClassMap:
        """[H, W] uint8 of a file of whole numbers, -1 = no label, which becomes IGNORE."""
        found, path = self.read(kind, index, 1, size), self.path(kind, index)
        whole = found.astype(np.int64)
        if (whole != found).any() or whole.min() < -1 or whole.max() >= classes:
            raise ValueError(
                f"{path}: whole numbers from -1 (no label) to {classes - 1} are expected, found {found.min():g} to "
                f"{found.max():g}. Are these labels of another number of classes?"
            )
        return ClassMap(torch.from_numpy(np.where(whole < 0, IGNORE, whole).astype(np.uint8)))

    def positive(self, kind: str, index: int, size: tuple[int, int]) -> ndarray:
        """[H, W] float32, NaN where the file has 0: no label."""
        found, path = self.read(kind, index, 1, size).astype(np.float32), self.path(kind, index)
        if not found.min() >= 0:  # a NaN is not
            raise ValueError(f"{path}: numbers of 0 (no label) or more are expected, found {found.min():g}.")
        return np.where(found > 0, found, np.float32(np.nan))


class NpyDataset(MapDataset):
    """A dataset of two trees: the files of "train" as "train" and "val", those of "val" as "test".

    A subclass has `folder`, whose last name is the dataset's, `seed`, `size`, `input`, `augmentation` and `evaluation`,
    calls `open`, says which training images are `trained` and `held` out, and has `read((part, number))`.
    """

    folder: Path
    trained: Sequence[int]
    held: Sequence[int]

    def open(self, kinds: Mapping[str, Sequence[str]], obtain: str) -> None:
        """Looks for both trees; arguments and errors are `NpyTree`'s."""
        self.trees = {part: NpyTree(self.folder, part, kinds, obtain) for part in ("train", "val")}

    def split(self, name: str) -> Split | None:
        part, images = {
            "train": ("train", self.trained),
            "val": ("train", self.held),
            "test": ("val", range(self.trees["val"].number)),
        }[name]
        return MapSplit(self, [(part, i) for i in images], augmented=name == "train") if images else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.folder.name, self.folder, self.trees["train"].files | self.trees["val"].files)
