"""What the writers of numpy trees, {part}/{kind}/{i}.npy, have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy import ndarray

from mtlbench.synthetic.nyuv2 import check_counts

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class NpyFiles:
    """`train` + `val` images of height x width pixels, all arrays of one dtype. A subclass has a `name`, the
    `least_height` that it can draw, and `write(folder, part, index)`, a function of (seed, part, index, height, width).

    Raises ValueError for sizes, counts or dtypes that cannot be written.
    """

    height: int
    width: int
    train: int
    val: int
    dtype: str
    seed: int

    name: ClassVar[str]
    least_height: ClassVar[int]

    def __post_init__(self) -> None:
        check_counts({"height": (self.height, self.least_height), "width": (self.width, 32)})
        check_counts({"train": (self.train, 1), "val": (self.val, 1)})
        if self.dtype not in DTYPES:
            raise ValueError(f"dataset.dtype={self.dtype}: {' or '.join(DTYPES)} is expected.")

    def items(self) -> list[tuple[str, int]]:
        """(part, index) of every image."""
        return [(part, index) for part in ("train", "val") for index in range(getattr(self, part))]

    def images(self, folder: Path) -> list[Path]:
        """The image files that a complete folder holds."""
        return [folder / part / "image" / f"{index}.npy" for part, index in self.items()]

    def save(self, folder: Path, index: int, arrays: dict[str, ndarray]) -> None:
        """{kind: array} as {kind}/{index}.npy."""
        for kind, array in arrays.items():
            path = folder / kind / f"{index}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array.astype(self.dtype))
