"""Reading NYUv2's files: the labelled set in HDF5 with MATLAB's axes reversed, splits and mappings of MATLAB 5."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from mtlbench.datasets.nyuv2_classes import IMAGES, LABELS, mapping_13, mapping_40, official_split

FILE = "nyu_depth_v2_labeled.mat"
SIZE = 2_972_037_809
"""Bytes of the official file."""

OBTAIN = (
    "Download {file} ({gigabytes:.1f} GB) from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html into {folder}, set "
    "machine.data=<folder above it>, or write a small synthetic one:\n"
    "  python -m mtlbench.synthesize dataset=nyuv2 machine.data={data}"
)

AXES = {"images": (None, 3, None, None), "labels": (None, None, None), "instances": (None, None, None)}
AXES |= {"depths": (None, None, None), "rawDepths": (None, None, None)}
"""{variable: its shape as h5py has it: image, (colour,) column, row; null: any number}"""

KINDS = {"images": "u1", "labels": "iu", "instances": "iu", "depths": "f", "rawDepths": "f"}
"""{variable: kinds of its numbers, as numpy's dtypes begin}"""


class LabeledFile:
    """nyu_depth_v2_labeled.mat. Each process opens it for itself, at the first image that it reads.

    size: (height, width); number: of images; bytes: of the file.
    Raises ValueError for a missing, unreadable or truncated file, for one that is not HDF5, and for variables that are
    missing or of other shapes.
    """

    def __init__(self, folder: Path, variables: tuple[str, ...]):
        self.path = folder / FILE
        self._opened: tuple[int, Any] | None = None
        self.bytes = self._check_file()
        file = self._open()
        shapes = {name: self._shape_of(file, name) for name in ("images", *variables)}
        self.number, _, width, height = shapes["images"]
        self.size = (height, width)
        for name, shape in shapes.items():
            if (shape[0], *shape[-2:]) != (self.number, width, height):
                raise ValueError(
                    f"{self.path}: {name} is {_axes(shape)}, the images are {_axes(shapes['images'])}: number of "
                    f"images, width and height must be the same. Download the file again."
                )
        if self.number == 0:
            raise ValueError(f"{self.path} holds no images.")
        file.close()
        self._opened = None

    def read(self, variable: str, index: int) -> ndarray:
        """[H, W], or [3, H, W] of the images: MATLAB's axes, not the file's."""
        if self._opened is None or self._opened[0] != os.getpid():  # a handle is of no use in another process
            self._opened = (os.getpid(), self._open())
        try:
            stored = self._opened[1][variable][index]
        except (OSError, KeyError) as error:
            raise ValueError(
                f"{self.path}: {variable} of image {index} cannot be read ({error}). Download the file again."
            ) from error
        return np.swapaxes(stored, -1, -2)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _check_file(self) -> int:
        folder = self.path.parent
        if self.path.is_dir():
            raise ValueError(f"{self.path} is a folder; the file of that name is expected.")
        if not self.path.exists():
            packed = [p for p in (folder.with_name(f"{folder.name}.zip"), self.path.with_suffix(".zip")) if p.is_file()]
            if folder.is_file() or packed:
                raise ValueError(f"{(packed or [folder])[0]} is a file; unpack it so that {self.path} is there.")
            told = OBTAIN.format(file=FILE, gigabytes=SIZE / 1e9, folder=folder, data=folder.parent)
            raise ValueError(f"nyuv2: {self.path} is missing.\n{told}")
        try:
            head = self.path.open("rb").read(4096)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror}). Look at its permissions.") from error
        if head.startswith(b"PK\x03\x04"):
            raise ValueError(f"{self.path} is a zip archive under another name; unpack it.")
        if b"\x89HDF\r\n\x1a\n" not in head:
            kind = "is of an older MATLAB format" if head.startswith(b"MATLAB 5") else "is not HDF5"
            raise ValueError(
                f"{self.path} {kind}; version 7.3 is expected, as it is distributed ({SIZE:,} bytes). Download it "
                f"again, or in MATLAB save(file, variables, '-v7.3')."
            )
        return self.path.stat().st_size

    def _open(self) -> Any:
        try:
            import h5py
        except ImportError as error:
            raise ValueError(
                f"{self.path} is HDF5, which needs h5py: pip install 'mtlbench[datasets]' (or pip install h5py)."
            ) from error
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(
                f"{self.path}: this HDF5 file cannot be opened ({error}). It has {self.path.stat().st_size:,} bytes, "
                f"the official one {SIZE:,}. Download it again."
            ) from error

    def _shape_of(self, file: Any, name: str) -> tuple[int, ...]:
        if name not in file:
            raise ValueError(f"{self.path}: there is no variable {name}; found: {', '.join(sorted(file))}.")
        shape, dtype = file[name].shape, file[name].dtype
        wanted = AXES[name]
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            raise ValueError(
                f"{self.path}: {name} is {_axes(shape)}; {len(wanted)} axes are expected, as h5py has them: image, "
                f"{'colour (3), ' if len(wanted) == 4 else ''}column, row."
            )
        if dtype.kind not in KINDS[name] or (name == "images" and dtype != np.uint8):
            raise ValueError(f"{self.path}: {name} has numbers of type {dtype}; {_numbers(name)} are expected.")
        return shape


def _axes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _numbers(name: str) -> str:
    return {"images": "uint8", "labels": "integers", "instances": "integers"}.get(name, "floats in metres")


def read_mat(path: Path, keys: tuple[str, ...]) -> Mapping[str, ndarray]:
    """Variables of a MATLAB 5 file. Raises ValueError that names what is missing or broken."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise ValueError(f"{path}: this MATLAB 5 file cannot be read ({error}). Download it again.") from error
    missing = [key for key in keys if key not in found]
    if missing:
        there = ", ".join(sorted(key for key in found if not key.startswith("__")))
        raise ValueError(f"{path}: there is no variable {missing[0]}; found: {there or 'none'}.")
    return found


def read_split(folder: Path, images: int) -> tuple[list[int], list[int]]:
    """(training, test) images, from 0: of splits.mat where it is, or the official ones.

    Raises ValueError for a split that is none, and without splits.mat where there are not 1449 images.
    """
    path = folder / "splits.mat"
    if not path.exists():
        if images != IMAGES:
            raise ValueError(
                f"nyuv2: {FILE} holds {images:,} images, not {IMAGES:,}, so that the official parts are not its own. "
                f"Put a file splits.mat with trainNdxs and testNdxs beside it."
            )
        return official_split(images)
    found = read_mat(path, ("trainNdxs", "testNdxs"))
    parts = [np.asarray(found[key]).ravel().astype(np.int64) - 1 for key in ("trainNdxs", "testNdxs")]
    both = np.concatenate(parts)
    if both.size and (both.min() < 0 or both.max() >= images):
        wrong = int(both.min() if both.min() < 0 else both.max()) + 1
        raise ValueError(f"{path}: image {wrong} is not among the 1 to {images:,} of {FILE}.")
    if len(np.unique(both)) != len(both) or not len(parts[0]):
        raise ValueError(f"{path}: training and test images must be different ones, and some must be for training.")
    return parts[0].tolist(), parts[1].tolist()


def read_mappings(folder: Path) -> tuple[ndarray, ndarray]:
    """(894 labels to 40 classes, 40 classes to 13), of classMapping40.mat and class13Mapping.mat where they are, or the
    same from `nyuv2_classes`. Raises ValueError for other lengths or classes that there are not."""
    to_40, to_13 = mapping_40(), mapping_13()
    path = folder / "classMapping40.mat"
    if path.exists():
        to_40 = _checked(path, "mapClass", read_mat(path, ("mapClass",))["mapClass"], LABELS, 40)
    path = folder / "class13Mapping.mat"
    if path.exists():
        struct = read_mat(path, ("classMapping13",))["classMapping13"]
        if struct.dtype.names is None or "labels13" not in struct.dtype.names:
            raise ValueError(f"{path}: classMapping13 must be a struct with a field labels13.")
        to_13 = _checked(path, "labels13", struct["labels13"].ravel()[0], 40, 13)
    return to_40, to_13


def _checked(path: Path, key: str, values: ndarray, length: int, classes: int) -> ndarray:
    values = np.asarray(values).ravel()
    if len(values) != length or values.min() < 1 or values.max() > classes:
        raise ValueError(f"{path}: {key} must have {length} numbers from 1 to {classes}; found {len(values)}.")
    return values.astype(np.uint8)
