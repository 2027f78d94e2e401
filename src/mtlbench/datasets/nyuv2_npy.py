"""NYUv2 as MTAN's authors pass it on (Liu, Johns & Davison 2019): 288 x 384, 13 classes, depth, normals, numpy arrays.

Licence: NYUv2 states none; its authors give it out for research and ask to be cited, and so do MTAN's.
Download the archive that github.com/lorenmt/mtan links to and unpack it so that <machine.data>/nyuv2_npy holds
    {train,val}/{image,label,depth,normal}/{0,1,2,...}.npy      795 in train, 654 in val
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torchvision.tv_tensors import Image

from mtlbench.dataset import select_tasks
from mtlbench.datasets import nyuv2_normals
from mtlbench.datasets.dense import INPUTS, check_size, hold_out
from mtlbench.datasets.measures import Measures, check
from mtlbench.datasets.npy_tree import NpyDataset, NpyTree
from mtlbench.datasets.nyuv2_classes import LIBMTL_VALIDATION, names_of, numbers
from mtlbench.labels import METRIC_DEPTH, NORMALS, Label
from mtlbench.sliding import Sliding
from mtlbench.transforms import Augmentation

CLASSES = 13

OBTAIN = (
    "Unpack the archive that github.com/lorenmt/mtan links to there, set machine.data=<folder above nyuv2_npy>, or "
    "write a small synthetic one:\n  python -m mtlbench.synthesize dataset=nyuv2_npy machine.data={}"
)


class NYUv2Npy(NpyDataset):
    """The files of "train" as "train", those of "val" (NYUv2's test part) as "test".

    tasks, size, measures, augmentation, evaluation, depth_scale, input: as in `nyuv2.NYUv2`.
    validation: "libmtl" holds out as "val" the 159 training files that LibMTL's did (Elich et al. 2023: 636 for
        training); a number: as many, drawn by `validation_seed` alone.
    normals_scale: what enlarging by s does to normals: "imtl", (x, y, s z) made one long; "none"; or "mtan", none and
        interpolated without becoming unit vectors again (the MTAN family's code).
    normals_axes: of the files, one of `nyuv2_normals.AXES`. Which it is nobody says; they are made of Eigen & Fergus'.
        It matters to normals_scale=imtl and to rotations; a few files are looked at, and have to agree.
    mtan_mask: a normal whose components add up to 0 is no label, as in the MTAN family's code, and not (0, 0, 0) alone.

    Targets: semantic [H, W] uint8, IGNORE where there is no label (-1 in the files); depth [1, H, W] metres; normals
    [3, H, W] in the camera's axes; NaN where there is none (0 in the files).
    Raises ValueError for missing, broken or unexpected files, naming them.
    """

    image_shape = (3, 288, 384)
    official = MappingProxyType({"train": 795, "test": 654})
    words = MappingProxyType({"semantic": names_of(CLASSES)})

    def __init__(
        self,
        folder: Path,
        seed: int,
        augmentation: Augmentation,
        evaluation: Sliding,
        measures: Measures,
        tasks: Sequence[str] | None = None,
        size: Sequence[int] | None = None,
        validation: int | str = 0,
        validation_seed: int = 0,
        depth_scale: str = "div",
        normals_scale: str = "imtl",
        normals_axes: str = "eigen",
        mtan_mask: bool = False,
        input: str = "unit",
    ):
        check("depth_scale", depth_scale, tuple(METRIC_DEPTH))
        check("normals_scale", normals_scale, tuple(NORMALS))
        check("normals_axes", normals_axes, tuple(nyuv2_normals.AXES))
        check("input", input, INPUTS)
        self.folder, self.seed, self.size, self.input = Path(folder) / "nyuv2_npy", seed, check_size(size), input
        self.augmentation, self.evaluation = augmentation, evaluation
        self.depth_label, self.normals_label = METRIC_DEPTH[depth_scale], NORMALS[normals_scale]
        self.axes, self.mtan_mask = normals_axes, mtan_mask
        available = {"semantic": measures.semantic(CLASSES), "depth": measures.depth(), "normals": measures.normals()}
        self.tasks = select_tasks(available, tasks, "nyuv2_npy")
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        names = {"semantic": ("label", "label_13"), "depth": ("depth",), "normals": ("normal", "normals")}
        kinds = {"image": ("image",)} | {task: names[task] for task in self.tasks}
        self.open(kinds, OBTAIN.format(folder))
        self.trained, self.held = self._held_out(validation, validation_seed)
        if "normals" in self.tasks:
            self._check_axes()

    def read(self, item: tuple[str, int]) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] float32 of 0 to 255 and labels of (part, number)."""
        part, index = item
        tree = self.trees[part]
        image, labels = tree.image(index), {}
        height, width = image.shape[-2:]
        if "semantic" in self.tasks:
            labels["semantic"] = tree.classes("semantic", index, CLASSES, (height, width))
        if "depth" in self.tasks:
            metres = tree.positive("depth", index, (height, width))
            labels["depth"] = self.depth_label(torch.from_numpy(metres)[None])
        if "normals" in self.tasks:
            labels["normals"] = self.normals_label(torch.from_numpy(self._normals(tree, index, (height, width))))
        return image, labels

    def _normals(self, tree: NpyTree, index: int, size: tuple[int, int]) -> np.ndarray:
        stored = tree.read("normals", index, 3, size).astype(np.float32)
        if not np.abs(stored).max() <= 1.01:
            raise ValueError(
                f"{tree.path('normals', index)}: components from -1 to 1 are expected, found {stored.min():g} to "
                f"{stored.max():g}."
            )
        normals = nyuv2_normals.to_camera(stored, self.axes)
        if self.mtan_mask:
            normals[:, stored.sum(-1) == 0] = np.nan
        return normals

    def _held_out(self, validation: int | str, seed: int) -> tuple[Sequence[int], Sequence[int]]:
        number = self.trees["train"].number
        if not isinstance(validation, str):
            return hold_out("nyuv2_npy", range(number), validation, seed)
        check("validation", validation, ("libmtl", "a number"))
        held = numbers(LIBMTL_VALIDATION)
        if max(held) >= number:
            raise ValueError(
                f"dataset.validation=libmtl: the list goes to {max(held)}.npy of the 795 training files, and "
                f"{self.trees['train'].folders['image']} has {number:,}. Hold out a number of them: "
                f"dataset.validation={max(1, number // 5)}."
            )
        return sorted(set(range(number)) - set(held)), held

    def _check_axes(self) -> None:
        tree = self.trees["train"]
        some = self.trained[:: max(1, len(self.trained) // 4)][:4]
        vectors = [tree.read("normals", i, 3).reshape(-1, 3) for i in some]
        nyuv2_normals.check_axes(np.concatenate(vectors), self.axes, tree.path("normals", some[0]))
