"""NYUv2 (Silberman et al. 2012) from its own files: classes, depth and surface normals of 1449 rooms at 480 x 640.

Licence: none is stated; the authors give the data out for research and ask to be cited.
Download nyu_depth_v2_labeled.mat (2.8 GB) from cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html into <machine.data>/nyuv2.
Beside it may lie, and are used where they do:
    splits.mat                                (indoor_seg_sup of the same authors; the official parts are known without)
    classMapping40.mat, class13Mapping.mat    (github.com/ankurhanda/nyuv2-meta-data; likewise)
    normals_gt/normals/0000.png, normals_gt/masks/0000.png ... 1448   (normals_gt.tgz of Eigen & Fergus 2015)
Without the last, normals are of planes fitted to the depth map, see `nyuv2_normals.from_depth`. Reading needs h5py:
pip install 'mtlbench[datasets]'.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy import ndarray
from torchvision.tv_tensors import Image

from mtlbench.dataset import Split, select_tasks
from mtlbench.datasets import nyuv2_normals
from mtlbench.datasets.dense import INPUTS, MapDataset, MapSplit, check_size, fingerprint, hold_out
from mtlbench.datasets.measures import Measures, check
from mtlbench.datasets.nyuv2_classes import LABELS, names_of, targets
from mtlbench.datasets.nyuv2_files import FILE, LabeledFile, read_mappings, read_split
from mtlbench.images import read_image
from mtlbench.labels import METRIC_DEPTH, NORMALS, ClassMap, Label
from mtlbench.sliding import Sliding
from mtlbench.transforms import Augmentation

VALID = (44, 471, 40, 601)
"""Rows and columns with labels and depth, of 480 x 640: first, one past the last."""

FILES = ("splits.mat", "classMapping40.mat", "class13Mapping.mat")


class NYUv2(MapDataset):
    """The 795 official training images as "train", the 654 test images as "test".

    tasks: names among semantic, depth, normals; null for all. What belongs to other tasks is never read.
    size: [height, width] of the whole images; null: 480 x 640, as they are.
    measures: losses and metrics, see `measures.Measures`.
    augmentation: of training images, `transforms.Augmentation` or `scale_crop.ScaleCrop`.
    evaluation: crops and flips of evaluation, see `sliding.Sliding`.
    validation: this many training images are held out as "val"; which ones depends on `validation_seed` alone.
    classes: 13 (MTAN, IMTL), 40 (the survey), or 41: no label is a class of its own, 0 (ASTMT).
    depth_source: "depths", filled in where the sensor saw nothing (most public code), or "raw", without labels there.
    depth_scale: what enlarging by s does to depth: "div" (IMTL, LibMTL, the survey) or "none".
    normals_source: "archive" (normals_gt), "depth" (planes fitted to the map of `depth_source`), or null: the archive
        where it is there. `fingerprint` says which.
    normals_axes: of the archive, one of `nyuv2_normals.AXES`; a few files are looked at, and have to agree.
    normals_scale: what enlarging by s does to normals: "imtl", (x, y, s z) made one long, or "none" (the MTAN family).
    normals_window: side in pixels of the window that a plane is fitted in.
    crop_border: only rows 44 to 470 and columns 40 to 600 are used, where labels and depth are.
    input: of the network, one of `dense.INPUTS`.

    Targets: semantic [H, W] uint8, IGNORE where there is no label; depth [1, H, W] metres; normals [3, H, W] unit
    vectors, x right, y down, z along the optical axis; NaN where there is none.
    Raises ValueError for missing, broken or unexpected files, naming them.
    """

    image_shape = (3, 480, 640)
    official = MappingProxyType({"train": 795, "test": 654})

    def __init__(
        self,
        folder: Path,
        seed: int,
        augmentation: Augmentation,
        evaluation: Sliding,
        measures: Measures,
        tasks: Sequence[str] | None = None,
        size: Sequence[int] | None = None,
        validation: int = 0,
        validation_seed: int = 0,
        classes: int = 13,
        depth_source: str = "depths",
        depth_scale: str = "div",
        normals_source: str | None = None,
        normals_axes: str = "eigen",
        normals_scale: str = "imtl",
        normals_window: int = 7,
        crop_border: bool = False,
        input: str = "imagenet",
    ):
        check("classes", classes, (13, 40, 41))
        check("depth_source", depth_source, ("depths", "raw"))
        check("depth_scale", depth_scale, tuple(METRIC_DEPTH))
        check("normals_source", normals_source, ("archive", "depth", None))
        check("normals_axes", normals_axes, tuple(nyuv2_normals.AXES))
        check("normals_scale", normals_scale, tuple(NORMALS))
        check("input", input, INPUTS)
        if normals_window < 3 or normals_window % 2 == 0:
            raise ValueError(f"dataset.normals_window={normals_window}: an odd number of 3 or more is expected.")
        self.folder, self.seed, self.size, self.input = Path(folder) / "nyuv2", seed, check_size(size), input
        self.augmentation, self.evaluation = augmentation, evaluation
        self.crop_border, self.axes, self.window = crop_border, normals_axes, normals_window
        self.depths = "depths" if depth_source == "depths" else "rawDepths"
        self.depth_label, self.normals_label = METRIC_DEPTH[depth_scale], NORMALS[normals_scale]
        available = {"semantic": measures.semantic(classes), "depth": measures.depth(), "normals": measures.normals()}
        self.tasks = select_tasks(available, tasks, "nyuv2")
        self.words = {"semantic": names_of(classes)}
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        self.fitted = "normals" in self.tasks and self._fitted(normals_source)
        variables = ["labels"] * ("semantic" in self.tasks)
        variables += [self.depths] * ("depth" in self.tasks or self.fitted)
        self.file = LabeledFile(self.folder, tuple(variables))
        trained, self.tested = read_split(self.folder, self.file.number)
        self.trained, self.held = hold_out("nyuv2", trained, validation, validation_seed)
        self.classes = targets(classes, *read_mappings(self.folder))
        self._check_archive()

    def split(self, name: str) -> Split | None:
        images = {"train": self.trained, "val": self.held, "test": self.tested}[name]
        return MapSplit(self, images, augmented=name == "train") if images else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        paths = [path for path in (self.folder / name for name in FILES) if path.exists()]
        files = {path.name: path.stat().st_size for path in paths} | {FILE: self.file.bytes}
        if "normals" in self.tasks and not self.fitted:
            for path in (path for index in range(self.file.number) for path in self._archived(index)):
                files[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        told = ", normals fitted to depth" if self.fitted else ""
        return fingerprint("nyuv2", self.folder, files) + told

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] uint8 and labels of the image of that number, from 0, at full size."""
        image = torch.from_numpy(np.ascontiguousarray(self._cut(self.file.read("images", index))))
        labels: dict[str, Label] = {}
        if "semantic" in self.tasks:
            stored = self.file.read("labels", index)
            if stored.max() > LABELS:
                raise ValueError(
                    f"{self.file.path}: image {index} has label {stored.max()}; 0 to {LABELS} are expected."
                )
            labels["semantic"] = ClassMap(torch.from_numpy(self.classes[self._cut(stored)]))
        depth = self._depth(index) if "depth" in self.tasks or self.fitted else None
        if "depth" in self.tasks:
            labels["depth"] = self.depth_label(torch.from_numpy(np.ascontiguousarray(self._cut(depth)))[None])
        if "normals" in self.tasks:
            if self.fitted:
                normals = nyuv2_normals.from_depth(depth, self.window)
            else:
                normals = nyuv2_normals.to_camera(self._stored_normals(index), self.axes)
            labels["normals"] = self.normals_label(torch.from_numpy(np.ascontiguousarray(self._cut(normals))))
        return Image(image), labels

    def _depth(self, index: int) -> ndarray:
        """Metres [H, W] float32, NaN where it is missing."""
        stored = self.file.read(self.depths, index).astype(np.float32)
        return np.where(np.isfinite(stored) & (stored > 0), stored, np.float32(np.nan))

    def _cut(self, values: ndarray) -> ndarray:
        """[..., H, W] without the border, where it is to be cut."""
        if not self.crop_border:
            return values
        height, width = values.shape[-2:]
        top, bottom = (round(row * height / 480) for row in VALID[:2])
        left, right = (round(column * width / 640) for column in VALID[2:])
        return values[..., top:bottom, left:right]

    # -- the archive of normals

    def _fitted(self, source: str | None) -> bool:
        there = (self.folder / "normals_gt").exists()
        if source == "archive" and not there:
            raise ValueError(
                f"dataset.normals_source=archive: {self.folder / 'normals_gt'} is missing. Unpack normals_gt.tgz, "
                f"or have planes fitted to the depth: dataset.normals_source=depth."
            )
        return source == "depth" or not there

    def _archived(self, index: int) -> tuple[Path, Path]:
        return tuple(self.folder / "normals_gt" / kind / f"{index:04d}.png" for kind in ("normals", "masks"))

    def _stored_normals(self, index: int) -> ndarray:
        """Vectors [H, W, 3] in the archive's axes, 0 where there is none."""
        path, mask = self._archived(index)
        pixels, valid = read_image(path, "RGB"), read_image(mask)
        for name, found in ((path, pixels.shape[:2]), (mask, valid.shape)):
            if found != self.file.size:
                raise ValueError(f"{name}: {found[0]} x {found[1]} is not the size of the images, {self.file.size}.")
        return nyuv2_normals.from_png(pixels, valid)

    def _check_archive(self) -> None:
        """Every image has its files, and the axes are what they are said to be."""
        if "normals" not in self.tasks or self.fitted:
            return
        for path in (path for i in (*self.trained, *self.held, *self.tested) for path in self._archived(i)):
            if not path.is_file():
                raise ValueError(
                    f"nyuv2: {path} is missing. Unpack normals_gt.tgz again, or use dataset.normals_source=depth."
                )
        some = self.trained[:: max(1, len(self.trained) // 4)][:4]
        vectors = np.stack([self._stored_normals(i) for i in some])
        nyuv2_normals.check_axes(vectors, self.axes, self._archived(some[0])[0])
