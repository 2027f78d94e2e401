"""Synthetic rooms in the format of MTAN's NYUv2: {train,val}/{image,label,depth,normal}/{i}.npy.

An image shows what is inside the border of a whole one, as MTAN's do. Of every eight training images one has no label
at all; the bedrooms, and with them the class bed, are in the training part alone.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mtlbench.datasets.nyuv2 import VALID
from mtlbench.datasets.nyuv2_classes import mapping_13, mapping_40, targets
from mtlbench.datasets.nyuv2_normals import AXES
from mtlbench.seeds import seed_of
from mtlbench.synthetic.indoor import FULL_CAMERA, Scene, room, view
from mtlbench.synthetic.npy_files import NpyFiles
from mtlbench.synthetic.nyuv2 import boundary, unsensed
from mtlbench.synthetic.raycast import Camera
from mtlbench.synthetic.rooms import ROOMS
from mtlbench.task import IGNORE

EMPTY = 7
"""Of every eight training images this one, from 0, has no label."""


class NYUv2Npy(NpyFiles):
    """Rooms; options and errors are those of `NpyFiles`."""

    name = "nyuv2_npy"
    version = 1
    least_height = 24

    def write(self, folder: Path, part: str, index: int) -> None:
        """All files of one image."""
        number = index
        if part == "val":  # over the kinds of room but the first
            number = index // (len(ROOMS) - 1) * len(ROOMS) + index % (len(ROOMS) - 1) + 1
        scene = room(self.seed, f"npy {part}", number)
        seen = view(scene, cropped_camera(scene, self.height, self.width), self.height, self.width)
        rng = np.random.default_rng(seed_of(self.seed, "nyuv2_npy", part, index))
        valid = ~unsensed(seen, rng)
        labels = np.where(boundary(seen.labels.astype(np.int32) * 64 + seen.instances), 0, seen.labels)
        classes = targets(13, mapping_40(), mapping_13())[labels].astype(int)
        classes[classes == IGNORE] = -1
        normals = np.einsum("ca,chw->hwa", np.array(AXES["eigen"], np.float32), seen.normals)
        at = tuple(rng.choice(np.argwhere(valid)))
        normals[at] = (np.sqrt(0.5), -np.sqrt(0.5), 0)  # a valid one whose components add up to 0
        normals[~valid] = 0
        depth = np.where(valid, seen.depth, 0)[..., None]
        if part == "train" and index % 8 == EMPTY:
            classes[:], depth[:], normals[:] = -1, 0, 0
        arrays = {"image": seen.image / 255, "label": classes, "depth": depth, "normal": normals}
        self.save(folder / part, index, arrays)


def cropped_camera(scene: Scene, height: int, width: int) -> Camera:
    """The scene's camera for an image of that size of what is inside the border."""
    top, bottom, left, right = VALID
    y, x = height / (bottom - top), width / (right - left)
    return replace(
        scene.pose,
        fx=FULL_CAMERA.fx * x,
        fy=FULL_CAMERA.fy * y,
        u0=(FULL_CAMERA.u0 - left + 0.5) * x - 0.5,
        v0=(FULL_CAMERA.v0 - top + 0.5) * y - 0.5,
    )
