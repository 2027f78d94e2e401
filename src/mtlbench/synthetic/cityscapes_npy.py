"""Synthetic streets in the format of MTAN's Cityscapes: {train,val}/{image,label_2,label_7,label_19,depth}/{i}.npy.

Inverse depth is p / 65535 with p = 256 d + 1 and d in pixels of an image 2048 wide, whatever the size; 0 is no label.
Which classes the two of label_2 are is not published: people and vehicles are 1 here, all else 0. Classes that are not
evaluated (parking, caravans ...) count for their category in label_7, and as no label in label_19.
"""

from pathlib import Path

import numpy as np
from numpy import ndarray

from mtlbench.datasets.cityscapes import TRAINED
from mtlbench.seeds import seed_of
from mtlbench.synthetic.cityscapes import LARGEST, cover, stored_disparity
from mtlbench.synthetic.ids import Id
from mtlbench.synthetic.npy_files import NpyFiles
from mtlbench.synthetic.street import View, render

FIRST = (Id.ROAD, Id.BUILDING, Id.POLE, Id.VEGETATION, Id.SKY, Id.PERSON, Id.CAR)
"""The first id of each of the seven categories: flat, construction, object, nature, sky, human, vehicle."""


class CityscapesNpy(NpyFiles):
    """Street scenes; options and errors are those of `NpyFiles`."""

    name = "cityscapes_npy"
    version = 1
    least_height = 16

    def write(self, folder: Path, part: str, index: int) -> None:
        """All files of one image."""
        rng = np.random.default_rng(seed_of(self.seed, "cityscapes_npy", part, index))
        seen = cover(render(self.seed, index, self.height, self.width, split=part), index, rng)
        stored = stored_disparity(seen, rng)
        arrays = {f"label_{n}": classes(seen.labels, n) for n in (2, 7, 19)}
        arrays |= {"image": seen.image / 255, "depth": inverse_depth(seen, stored)[..., None]}
        self.save(folder / part, index, arrays)


def classes(ids: ndarray, number: int) -> ndarray:
    """Cityscapes' ids [H, W] as one of 2, 7 or 19 classes, -1 where there is none."""
    table = np.full(len(Id), -1)
    if number == 19:
        table[list(TRAINED)] = range(19)
        return table[ids]
    table[Id.ROAD :] = np.searchsorted(FIRST, np.arange(Id.ROAD, len(Id)), side="right") - 1
    if number == 2:
        table = np.where(table < 0, -1, table >= FIRST.index(Id.PERSON))
    return table[ids]


def inverse_depth(seen: View, stored: ndarray) -> ndarray:
    """p / 65535 [H, W] of stored disparities in pixels of the written image."""
    pixels = (stored.astype(np.float64) - 1) * (2048 / stored.shape[1])
    p = np.minimum(np.rint(pixels) + 1, LARGEST)
    p[stored == 0] = 0
    p[(seen.labels == Id.EGO_VEHICLE) & (stored == LARGEST)] = LARGEST
    return p / 65535
