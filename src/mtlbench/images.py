"""Image files as arrays, with errors that name the file."""

from pathlib import Path

import numpy as np
import PIL.Image


def read_image(path: Path, mode: str | None = None) -> np.ndarray:
    """A file as [H, W, 3] uint8 for mode RGB, otherwise its one channel of grey (or of palette indices), [H, W] uint8
    or uint16.

    16 bits go through numpy: their mode differs between versions of Pillow, and torchvision's older functions make
    numbers above 32767 negative. Raises ValueError that names a missing or broken file, and for other channels.
    """
    try:
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image.convert(mode) if mode else image)
    except (OSError, SyntaxError, ValueError) as error:  # what decoders raise, by where a file breaks off
        kind = "PNG" if path.suffix.lower() == ".png" else "image"
        raise ValueError(f"{path}: this {kind} cannot be read ({error}). Unpack or download it again.") from error
    if mode is None and pixels.ndim != 2:
        raise ValueError(f"{path}: one grey channel is expected, found {pixels.shape[2]} channels.")
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.dtype.kind == "f" or pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
            raise ValueError(f"{path}: 8 or 16 bits without a sign are expected, found {pixels.dtype}.")
        return pixels.astype(np.uint16)  # Pillow's mode I
    return pixels


def size_of(path: Path) -> tuple[int, int] | None:
    """(height, width) as the file's first bytes say; None for a file that is missing or no image."""
    try:
        with PIL.Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError):
        return None
    return height, width
