"""MNIST and its namesakes: 28 x 28 grey images of ten classes in four IDX files, packed (.gz) or not.

Licences: Fashion-MNIST (Zalando SE 2017) is under the MIT licence; MNIST (Yann LeCun and Corinna Cortes) is commonly
given as CC BY-SA 3.0. `MNIST` and `FASHION` say where their files are looked for and how to get them.
"""

import gzip
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDE = 28
IMAGES, LABELS = 2051, 2049  # the magic numbers
FOUR = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"


class Digits(NamedTuple):
    """Single digits, or what is in their place: images [N, 28, 28] uint8, labels [N] integers 0 to 9."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "Digits":
        return Digits(self.images[indices], self.labels[indices])


class Source(NamedTuple):
    """Where four files may be (under machine.data, or absolute; the first folder that holds any of them is read), and
    what to do where they are in none of the places."""

    name: str
    places: tuple[str, ...]
    advice: str


MNIST = Source(
    "MNIST",
    ("mnist", "MNIST/raw"),
    f"Put MNIST's four IDX files there, packed or not: {FOUR}; or set machine.data=<the folder that holds mnist>.\n"
    f"Without MNIST, dataset=multidigits makes the same task from scikit-learn's digits.",
)

FASHION = Source(
    "Fashion-MNIST",
    ("fashion-mnist", "FashionMNIST/raw", "/usr/share/datasets/fashion-mnist"),
    f"It is free (MIT licence). On Debian and Ubuntu type: apt-get install dataset-fashion-mnist\n"
    f"Elsewhere: python -c \"import torchvision; torchvision.datasets.FashionMNIST('<machine.data>', download=True)\", "
    f"or put the four IDX files into the first of these folders: {FOUR}.",
)


def read_digits(folder: Path, prefix: str, source: Source) -> Digits:
    """The images of <prefix>-images-idx3-ubyte and <prefix>-labels-idx1-ubyte; `folder` is machine.data.

    Raises ValueError that names the file for one that is missing, truncated, of another kind, not to be read, or that
    does not fit its partner.
    """
    place = find(folder, source)
    image_path, image_values = _read_idx(place, f"{prefix}-images-idx3-ubyte", IMAGES, source)
    label_path, labels = _read_idx(place, f"{prefix}-labels-idx1-ubyte", LABELS, source)
    if image_values.shape[1:] != (SIDE, SIDE):
        height, width = image_values.shape[1:]
        raise ValueError(f"{image_path}: expected images of {SIDE} x {SIDE} pixels, found {height} x {width}.")
    if len(labels) != len(image_values):
        raise ValueError(
            f"{label_path} has {len(labels):,} labels, {image_path} has {len(image_values):,} images: "
            f"the two files do not belong together. Put both from the same download there."
        )
    if len(labels) == 0:
        raise ValueError(f"{image_path}: there are no images in it. Download it again.")
    if labels.max() > 9:
        raise ValueError(f"{label_path}: expected labels from 0 to 9, found {labels.max()}.")
    return Digits(image_values, labels)


def find(folder: Path, source: Source) -> Path:
    """The first of the places that holds any of the files. Raises ValueError where none does."""
    places = [folder / place for place in source.places]
    zips = []
    for place in places:
        if os.path.isfile(place):
            raise ValueError(f"{place}: a folder is expected, found a file. Unpack it into a folder of that name.")
        names = _names(place)
        if any(name.endswith(("-ubyte", "-ubyte.gz")) for name in names):
            return place
        zips += [place / name for name in names if name.endswith(".zip")]
    *others, last = map(str, places)
    raise ValueError(
        f"{source.name}: there are no IDX files under {', '.join(others)} or {last}.\n"
        f"{f'{zips[0]} is there: unpack it there. ' if zips else ''}{source.advice}"
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise ValueError(f"{folder}: may not be read ({error.strerror}). Type: chmod a+rx {folder}") from error


def _read_idx(folder: Path, name: str, magic: int, source: Source) -> tuple[Path, np.ndarray]:
    """The path that was read and the array in it: big-endian int32 magic and sizes, then uint8 values."""
    there = _names(folder)
    path = next((folder / n for n in (name, f"{name}.gz") if n in there), None)
    if path is None:
        raise ValueError(f"{source.name}: there is no {name} (or {name}.gz) under {folder}.\n{source.advice}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except PermissionError as error:
        raise ValueError(f"{path}: may not be read ({error.strerror}). Type: chmod a+r {path}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path}: a file is expected, found a folder. Put the file itself there.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: truncated or damaged ({error}). Download it again.") from error
    kind, dimensions = ("images", 3) if magic == IMAGES else ("labels", 1)
    start = 4 + 4 * dimensions
    header = np.frombuffer(content[: min(start, len(content) // 4 * 4)], dtype=">i4")
    if len(header) and header[0] != magic:
        raise ValueError(
            f"{path}: expected an IDX file of {kind}, which begins with the number {magic}, found {header[0]}. "
            f"Put the file of that name from the download there."
        )
    expected = start + (int(np.prod(header[1:], dtype=np.int64)) if len(header) == 1 + dimensions else 1)
    if len(content) != expected:
        raise ValueError(
            f"{path}: expected {expected:,} bytes{' when unpacked' if path.suffix == '.gz' else ''}, "
            f"found {len(content):,}: truncated or damaged. Download it again."
        )
    return path, np.frombuffer(content, dtype=np.uint8, offset=start).reshape(tuple(header[1:]))
