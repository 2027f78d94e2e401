"""CelebA's files: two trees of folders, lists of text separated by any number of blanks."""

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)  # fmt: skip
"""In the order of the list."""

LANDMARKS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
"""In the order of the list; left is the left of the image."""

PARTS, ATTRIBUTE_LIST, LANDMARK_LIST = (
    "list_eval_partition.txt",
    "list_attr_celeba.txt",
    "list_landmarks_align_celeba.txt",
)
IMAGES = "img_align_celeba"
PLACES = ("", "Anno", "Eval", "Img", "Img/img_align_celeba", "img_align_celeba")
"""Folders below celeba where lists and images are looked for; the last two for images unpacked into one folder more."""

OFFICIAL = {"train": 162_770, "val": 19_867, "test": 19_962}
"""How many images the real parts have."""


class Table(NamedTuple):
    """A list: names of images [N], and values [N, K]."""

    path: Path
    names: list[str]
    values: np.ndarray


def find_list(folder: Path, name: str) -> Path:
    """Where a list is. Raises ValueError where it is not, that says what is there instead."""
    if os.path.isfile(folder):
        raise ValueError(f"celeba: {folder}: a folder is expected, found a file. Unpack it into a folder of that name.")
    closed = [folder / p for p in PLACES if os.path.isdir(folder / p) and not _open(folder / p)]
    path = next((folder / place / name for place in PLACES if os.path.isfile(folder / place / name)), None)
    if path is None and closed:
        raise ValueError(f"celeba: {closed[0]}: may not be read (Permission denied). Type: chmod a+rx {closed[0]}")
    if path is not None:
        return path
    table = name.replace(".txt", ".csv")
    csv = next((folder / place / table for place in PLACES if os.path.isfile(folder / place / table)), None)
    if csv is not None:
        raise ValueError(f"celeba: {csv} is a copy in another format: the authors' {name} is needed. Put it there.")
    raise ValueError(
        f"celeba: there is no {name} in {folder}, {folder / 'Anno'} or {folder / 'Eval'}.\n"
        f"Download it with the images from mmlab.ie.cuhk.edu.hk/projects/CelebA.html (for research that is not "
        f"commercial), set machine.data=<the folder that holds celeba>, or write small synthetic data:\n"
        f"  python -m mtlbench.synthesize dataset=celeba machine.data={folder.parent}"
    )


def _open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def find_images(folder: Path) -> tuple[Path, dict[str, int]]:
    """The folder of the aligned images, and the size in bytes of each file in it.

    Raises ValueError where there is none, or an archive, a file or a folder that may not be read in its place.
    """
    archive = None
    for place in PLACES:
        images = folder / place / IMAGES
        if os.path.isdir(images):
            sizes = _sizes(images)
            if sizes:
                return images, sizes
        elif os.path.isfile(images):
            raise ValueError(f"celeba: {images}: a folder is expected, found a file. Unpack it into that folder.")
        if os.path.isfile(images.with_suffix(".zip")):
            archive = archive or images.with_suffix(".zip")
    if archive is not None:
        raise ValueError(
            f"celeba: {archive} is not unpacked: a folder {IMAGES} with the images is expected beside it. "
            f"Type: unzip -q {archive} -d {archive.parent}"
        )
    raise ValueError(
        f"celeba: there are no images under {folder / 'Img' / IMAGES} or {folder / IMAGES}. "
        f"Unpack {IMAGES}.zip there (not img_celeba: those are not aligned)."
    )


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.stat().st_size for e in entries if e.name.endswith(".jpg") and not e.name.startswith(".")}
    except PermissionError as error:
        raise ValueError(f"celeba: {folder}: may not be read ({error.strerror}). Type: chmod a+rx {folder}") from error


def read_parts(path: Path) -> Table:
    """Each image and its part: 0 train, 1 val, 2 test; values [N, 1]. The list has no header."""
    return _table(path, _lines(path), 1, 1, (0, 1, 2))


def read_attributes(path: Path) -> Table:
    """values [N, 40]: -1 or 1. Raises ValueError for a count, a header or a row that is not as it should be."""
    return _counted(path, ATTRIBUTES, (-1, 1))


def read_landmarks(path: Path) -> Table:
    """values [N, 10]: x and y of `LANDMARKS` in turn, pixels of the aligned image."""
    return _counted(path, [f"{name}_{axis}" for name in LANDMARKS for axis in "xy"], None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except PermissionError as error:
        raise ValueError(f"celeba: {path}: may not be read ({error.strerror}). Type: chmod a+r {path}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"celeba: {path}: this is no plain text ({error.reason}). Download it again.") from error


def _counted(path: Path, header: Sequence[str], allowed: Sequence[int] | None) -> Table:
    """A list whose first line is the number of images and whose second line names the columns."""
    lines = _lines(path)
    if len(lines) < 2 or not lines[0].strip().isdigit():
        found = lines[0][:40] if lines else ""
        raise ValueError(f"celeba: {path}: the number of images is expected in line 1, found {found!r}.")
    names = lines[1].split()
    if names != list(header):
        odd = next((a for a, b in zip(names, header, strict=False) if a != b), f"{len(names)} names")
        raise ValueError(
            f"celeba: {path}: line 2 is expected to name the {len(header)} columns {header[0]} to {header[-1]} in "
            f"the authors' order, found {odd}. Download the list again."
        )
    table = _table(path, lines[2:], 3, len(header), allowed)
    if len(table.names) != int(lines[0]):
        raise ValueError(
            f"celeba: {path}: line 1 says {int(lines[0]):,} images, and there are {len(table.names):,}: cut off or "
            f"put together from several. Download it again."
        )
    return table


def _table(path: Path, lines: Sequence[str], first: int, columns: int, allowed: Sequence[int] | None) -> Table:
    """Rows of a name and numbers, from line number `first` of the file on."""
    numbered = [(i, line.strip()) for i, line in enumerate(lines, first) if line and not line.isspace()]
    names, numbers = [line.partition(" ")[0] for _, line in numbered], [line.partition(" ")[2] for _, line in numbered]
    wrong = next((i for i, text in enumerate(numbers) if len(text.split()) != columns), None)
    values = np.zeros(0, np.int16)
    if wrong is None:
        with suppress(ValueError):  # words that are no numbers are found below
            # eight million numbers: a list of words would be 800 MB and take seconds
            values = np.fromstring(" ".join(numbers), dtype=np.int16, sep=" ")
        if values.size == columns * len(names):
            values = values.reshape(-1, columns)
            bad = [] if allowed is None else np.flatnonzero(~np.isin(values, allowed).all(1))
            wrong = int(bad[0]) if len(bad) else None
        else:
            wrong = next(i for i, text in enumerate(numbers) if not all(map(_whole, text.split())))
    if wrong is not None:
        kind = f"each one of {', '.join(map(str, allowed))}" if allowed else "whole numbers"
        line, found = numbered[wrong]
        raise ValueError(
            f"celeba: {path}: line {line}: a name and {columns} values are expected, {kind}; found {found[:60]!r}. "
            f"Download it again."
        )
    if len(set(names)) < len(names):
        twice = next(a for a, b in pairwise(sorted(names)) if a == b)
        raise ValueError(f"celeba: {path}: {twice} is in it twice. Download it again.")
    if not names:
        raise ValueError(f"celeba: {path}: there are no images in it. Download it again.")
    return Table(path, names, values)


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def rows_of(parts: Table, table: Table) -> np.ndarray:
    """The values [N, K] of a list in the order of the list of parts.

    Raises ValueError where the two lists are not of the same images.
    """
    if table.names == parts.names:
        return table.values
    if len(table.names) != len(parts.names):
        raise ValueError(
            f"celeba: {table.path} has {len(table.names):,} images, {parts.path} has {len(parts.names):,}: the lists "
            f"do not belong together. Put all lists from the same download there."
        )
    at = {name: i for i, name in enumerate(table.names)}
    missing = next((name for name in parts.names if name not in at), None)
    if missing is not None:
        raise ValueError(
            f"celeba: {missing} of {parts.path} is not in {table.path}: the lists do not belong together. Put all "
            f"lists from the same download there."
        )
    return table.values[[at[name] for name in parts.names]]
