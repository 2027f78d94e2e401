"""Cityscapes as MTAN's authors pass it on (Liu, Johns & Davison 2019): 2, 7 or 19 classes, inverse depth, numpy arrays.

Licence: that of Cityscapes, which asks every user to register at www.cityscapes-dataset.com; research only.
Download the archive of 128 x 256 (or 256 x 512) that github.com/lorenmt/mtan links to and unpack it so that
<machine.data>/cityscapes_npy holds
    {train,val}/{image,label_2,label_7,label_19,depth}/{0,1,2,...}.npy      2975 in train, 500 in val
LibMTL's copy, with one folder `label` of 7 classes, is read as well.
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torchvision.tv_tensors import Image

from mtlbench.dataset import select_tasks
from mtlbench.datasets.cityscapes import COLOURS, NAMES
from mtlbench.datasets.dense import INPUTS, check_size, hold_out
from mtlbench.datasets.measures import Measures, check
from mtlbench.datasets.npy_tree import NpyDataset
from mtlbench.labels import INVERSE_DEPTH, Disparity, Label
from mtlbench.sliding import Sliding
from mtlbench.transforms import Augmentation

OBTAIN = (
    "Unpack the archive that github.com/lorenmt/mtan links to there, set machine.data=<folder above cityscapes_npy>, "
    "or write a small synthetic one:\n  python -m mtlbench.synthesize dataset=cityscapes_npy machine.data={}"
)

CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
WORDS = {2: ("background", "foreground"), 7: CATEGORIES, 19: NAMES}
KNOWN_BY = {2: (0, 13), 7: (0, 2, 5, 8, 10, 11, 13), 19: range(19)}
"""{number of classes: those of the 19 in whose colours they are shown}"""

UNITS = {"mtan": "", "px_full": "px", "px_at_size": "px"}
"""{unit of inverse depth: what is said in tables}"""


class CityscapesNpy(NpyDataset):
    """The files of "train" as "train", those of "val" (the official validation images, 500) as "test".

    tasks: names among semantic, depth; null for both.
    size: [height, width] of the whole images; null: as they are.
    classes: 7 (Elich et al. 2023, CAGrad, LibMTL), 19 or 2; read from label_<classes>, or from `label`.
    measures, augmentation, evaluation, input: as in `nyuv2.NYUv2`.
    validation: this many training images are held out as "val" (Elich et al. 2023: 595); which ones depends on
        `validation_seed` alone, and is unsaid there.
    invdepth_scale: what enlarging by s does to inverse depth: "mul" by s, which is right; "div", as in CAGrad's code,
        which Elich et al. point to; or "none".
    unit: of targets and errors: "mtan", as stored, p / 65535 of the disparity PNG's p whatever the size (0.0134 is 3.4
        pixels of an image 2048 wide); "px_full", (p - 1) / 256, those pixels; "px_at_size", pixels of the images of
        `size`. Errors of different units are never compared.

    Targets: semantic [H, W] uint8, IGNORE where there is no label (-1 in the files); depth [1, H, W], NaN where there
    is none (0 in the files). A measured disparity of 0 (p = 1) is a label, and makes relative errors large.
    Raises ValueError for missing, broken or unexpected files, naming them.
    """

    image_shape = (3, 128, 256)
    official = MappingProxyType({"train": 2975, "test": 500})

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
        classes: int = 7,
        invdepth_scale: str = "mul",
        unit: str = "mtan",
        input: str = "unit",
    ):
        check("classes", classes, (2, 7, 19))
        check("invdepth_scale", invdepth_scale, tuple(INVERSE_DEPTH))
        check("unit", unit, tuple(UNITS))
        check("input", input, INPUTS)
        if unit == "px_at_size" and invdepth_scale != "mul":
            raise ValueError(f"dataset.unit=px_at_size goes with invdepth_scale=mul, not with {invdepth_scale}.")
        self.folder, self.seed, self.size, self.input = Path(folder) / "cityscapes_npy", seed, check_size(size), input
        self.augmentation, self.evaluation, self.classes, self.unit = augmentation, evaluation, classes, unit
        self.depth_label = Disparity if unit == "px_at_size" else INVERSE_DEPTH[invdepth_scale]
        available = {"semantic": measures.semantic(classes), "depth": measures.depth(UNITS[unit])}
        self.tasks = select_tasks(available, tasks, "cityscapes_npy")
        self.words = {"semantic": WORDS[classes]}
        self.colours = {"semantic": [COLOURS[i] for i in KNOWN_BY[classes]]}
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        names = {"semantic": (f"label_{classes}", "label"), "depth": ("depth",)}
        kinds = {"image": ("image",)} | {task: names[task] for task in self.tasks}
        self.open(kinds, OBTAIN.format(folder))
        number = self.trees["train"].number
        self.trained, self.held = hold_out("cityscapes_npy", range(number), validation, validation_seed)

    def read(self, item: tuple[str, int]) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] float32 of 0 to 255 and labels of (part, number)."""
        part, index = item
        tree = self.trees[part]
        image, labels = tree.image(index), {}
        height, width = image.shape[-2:]
        if "semantic" in self.tasks:
            labels["semantic"] = tree.classes("semantic", index, self.classes, (height, width))
        if "depth" in self.tasks:
            inverse = in_unit(tree.positive("depth", index, (height, width)), self.unit, width)
            labels["depth"] = self.depth_label(torch.from_numpy(inverse)[None])
        return image, labels


def in_unit(stored: np.ndarray, unit: str, width: int) -> np.ndarray:
    """p / 65535 in one of UNITS, of an image `width` pixels wide."""
    if unit == "mtan":
        return stored
    pixels = (65535 * stored - 1) / 256
    return (pixels if unit == "px_full" else pixels * (width / 2048)).astype(np.float32)
