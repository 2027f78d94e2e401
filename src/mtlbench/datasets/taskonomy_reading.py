"""Taskonomy's files, read one at a time, and which of them are whole."""

import hashlib
import json
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image


class Found(NamedTuple):
    """A file: its name below the dataset's folder, and its size in bytes."""

    name: str
    size: int


def read_png(path: Path, bits: int, channels: int) -> np.ndarray:
    """A PNG as [H, W] or [H, W, 3], uint8 or uint16.

    Raises ValueError that names a missing or broken file and one of another depth or number of channels.
    """
    try:
        with PIL.Image.open(path) as image:
            depth = _bit_depth(path)
            # through numpy: Pillow's mode of 16-bit greys changed, torchvision's ToTensor makes 65535 to -1
            pixels = np.asarray(image.convert("RGB") if channels == 3 and image.mode == "RGBA" else image)
    except (OSError, SyntaxError, ValueError, struct.error) as error:  # what Pillow raises, by where the file breaks
        raise ValueError(f"{path}: this PNG cannot be read ({error}). Unpack or download it again.") from error
    found = 1 if pixels.ndim == 2 else pixels.shape[2]
    if (depth, found) != (bits, channels):
        raise ValueError(
            f"{path}: {_kind(bits, channels)} is expected, found {_kind(depth, found)}. Download the original file; "
            f"one that was converted has lost its values."
        )
    return pixels.astype(np.uint16) if bits == 16 else pixels


def _kind(bits: int, channels: int) -> str:
    return f"{bits}-bit {'grey' if channels == 1 else f'with {channels} channels'}"


def _bit_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]


def read_probabilities(path: Path, count: int) -> np.ndarray:
    """A float array [count] of a .npy file. Raises ValueError that names a broken one or one of another shape."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: this .npy cannot be read ({error}). Unpack or download it again.") from error
    if values.size != count or values.dtype.kind != "f":
        raise ValueError(f"{path}: {count} floats are expected, found {list(values.shape)} {values.dtype}.")
    return values.reshape(count)


def trouble(path: Path) -> str | None:
    """What is wrong with a file, found without decoding it: its end is missing or a checksum does not fit; or None.

    Raises ValueError for a file that may not be read: nothing is wrong with it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}). Give yourself the right: chmod u+r.") from error
    if path.suffix == ".npy":
        try:
            np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            return str(error)
        return None
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return "not a PNG"
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
            return f"the checksum of a {kind.decode('ascii', 'replace')} chunk does not fit"
        if kind == b"IEND":
            return None
        at = end
    return "cut off"


CHECKED = "checked_files.json"
"""In the dataset's folder: which files were found broken, for each list of names, sizes and times that was checked."""


def broken_files(folder: Path, groups: Iterable[Sequence[Found]]) -> dict[str, str]:
    """{name: what is wrong} of the files that are not whole; each group is looked at once and remembered in CHECKED."""
    path = folder / CHECKED
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        known = {}
    found: dict[str, str] = {}
    before = len(known)
    for group in groups:
        changed = [(file.name, (folder / file.name).stat().st_mtime_ns) for file in group]
        key = hashlib.sha256(json.dumps([sorted(group), sorted(changed)]).encode()).hexdigest()[:32]
        if key not in known:
            known[key] = {file.name: why for file in group if (why := trouble(folder / file.name))}
        found |= known[key]
    if len(known) > before:
        _remember(path, known)
    return found


def _remember(path: Path, known: Mapping[str, Mapping[str, str]]) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            json.dump(known, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error.strerror}): every start looks at all files anew.", stacklevel=3
        )
