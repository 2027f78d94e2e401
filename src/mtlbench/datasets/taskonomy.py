"""Taskonomy (Zamir et al. 2018): up to eleven tasks of one image of a building's scan, in three layouts of files.

Licence: a form of its own, for research only. Both ways to the files begin with it: github.com/StanfordVL/taskonomy, or
the package omnidata-tools: `omnitools.download rgb depth_zbuffer normal ... --components taskonomy --subset tiny`.
Unpack the archives so that <machine.data>/taskonomy holds one of
    <domain>/taskonomy/<building>/point_<p>_view_<v>_domain_<suffix>.png
    <building>/<domain>/point_<p>_view_<v>_domain_<suffix>.png
    <domain>/<building>/point_<p>_view_<v>.png
and put train_val_test_tiny.csv there, from data/assets/splits_taskonomy.zip of the first address. The domain rgb, those
of your tasks and depth_zbuffer (for the masks) are read. Of the tiny split the building woodbine is not in every
download, and wiconisco has damaged files of edge_texture: dataset.missing_buildings=skip dataset.broken_files=skip go
on without them. `python -m mtlbench.synthesize dataset=taskonomy` writes a small synthetic set.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from mtlbench.cache import ImageFiles
from mtlbench.dataset import MultiTaskDataset, Split, select_tasks
from mtlbench.datasets import taskonomy_values as values
from mtlbench.datasets.dense import MapSplit
from mtlbench.datasets.taskonomy_files import Frame, Tree, read_split
from mtlbench.datasets.taskonomy_parts import Parts
from mtlbench.datasets.taskonomy_reading import read_png, read_probabilities
from mtlbench.datasets.taskonomy_tasks import Losses, tasks_of
from mtlbench.datasets.taskonomy_values import DOMAINS, MASK, RGB, ZBUFFER, Domain
from mtlbench.labels import Label
from mtlbench.transforms import Augmentation


class Taskonomy(MultiTaskDataset):
    """The parts of the CSV as "train", "val" and "test"; the tasks are the keys of `taskonomy_values.DOMAINS`.

    tasks: names; null for all eleven.
    layout: omnidata, original or standley; null: the one that is there.
    split_file: in the dataset's folder; the published ones are train_val_test_{debug,tiny,medium,full,fullplus}.csv.
    size: [height, width] of the whole images, null for 512 x 512 as they are. Masks are made at full size, and labels
        sampled: what is invalid is never mixed with what is valid.
    sample: one image in this many, in the order of building, point and view (LSB, Lee et al. 2021: 100; which ones is
        unsaid, as is whether validation images are sampled).
    normalisation: of the targets, by name: see `taskonomy_values.NORMALISATIONS`. Neither LSB nor the survey says.
    validity: which pixels have labels, by name: see `taskonomy_values.VALIDITIES`; 2D edges and keypoints all have.
    losses: see `taskonomy_tasks.Losses`.
    normals_z: "stored" (all three public codes), or "viewer": z is positive towards the camera, whichever way the
        files have it (the documentation and a published dump of an original file differ; `facing` looks).
    semantic_classes: 17 (the authors), or 18 with a class 0 that is never a label (Standley et al.).
    scene_classes: 63 of homes and workplaces (the authors), or all 365 of Places.
    absent: what mIoU does with a class found neither in labels nor predictions: skip, nan or zero.
    missing_buildings, broken_files: "fail", or "skip": a building without images is left out; a label whose file is
        missing or damaged is no label (its image stays, for the other tasks); an image that is damaged is left out.
        `left_out` has the counts, for the record. Public code silently repeats the image before (Standley et al.).

    Raises ValueError for what is missing, damaged, of another size, bit depth or encoding, naming the file.
    """

    image_shape = (3, 512, 512)

    input = "imagenet"

    def __init__(
        self,
        folder: Path,
        seed: int,
        augmentation: Augmentation,
        losses: Losses,
        tasks: Sequence[str] | None = None,
        layout: str | None = None,
        split_file: str = "train_val_test_tiny.csv",
        size: Sequence[int] | None = None,
        sample: int = 1,
        normalisation: str = "taskonomy",
        validity: str = "taskonomy",
        normals_z: str = "stored",
        semantic_classes: int = 17,
        scene_classes: int = 63,
        absent: str = "skip",
        missing_buildings: str = "fail",
        broken_files: str = "fail",
    ):
        _check("normalisation", normalisation, values.NORMALISATIONS)
        _check("validity", validity, values.VALIDITIES)
        _check("normals_z", normals_z, ("stored", "viewer"))
        _check("semantic_classes", semantic_classes, (17, 18))
        _check("scene_classes", scene_classes, (len(values.HOME), values.PLACES))
        _check("missing_buildings", missing_buildings, ("fail", "skip"))
        _check("broken_files", broken_files, ("fail", "skip"))
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"dataset.size={size}: [height, width] or null is expected.")
        if sample < 1:
            raise ValueError(f"dataset.sample={sample}: 1 or more is expected: one image in that many is used.")
        self.folder, self.seed, self.augmentation = Path(folder) / "taskonomy", seed, augmentation
        self.size = tuple(size) if size else None
        self.normalisation, self.validity = normalisation, validity
        self.semantic_classes, self.scene_classes = semantic_classes, scene_classes
        available = tasks_of(losses, normalisation, semantic_classes, scene_classes, absent)
        self.all_tasks = tuple(available)
        self.tasks = select_tasks(available, tasks, "taskonomy")
        _check_defined(normalisation, self.tasks)
        uncertain = ["never a label"] if semantic_classes > len(values.SEMANTIC) else []
        places = values.HOME if scene_classes == len(values.HOME) else range(values.PLACES)
        self.words = {
            "semantic": [*uncertain, *values.SEMANTIC],
            "scene": [f"Places {number}" for number in places],
        }
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        tree = Tree(self.folder, layout)
        self.mask = self._mask()
        domains = {task: [DOMAINS[task].name] for task in self.tasks}
        for task in self.tasks if self.mask else ():
            if DOMAINS[task].masked and DOMAINS[task] != self.mask:
                domains[task].append(self.mask.name)
        chosen = [DOMAINS[task] for task in self.tasks if task != "scene"]
        self.read = list(dict.fromkeys([*chosen, *([self.mask] if self.mask else [])]))  # PNGs beside the image
        buildings = read_split(self.folder / split_file)
        self.parts = Parts(tree, buildings, domains, sample, missing_buildings, broken_files)
        self.left_out = self.parts.left_out
        self.turned = normals_z == "viewer" and "normals" in self.tasks and self._facing() == "low"

    def split(self, name: str) -> Split | None:
        frames = self.parts.frames[name]
        return TaskonomySplit(self, frames, augmented=name == "train") if frames else None

    def fingerprint(self) -> str:
        return f"{'synthetic ' if self.synthetic else ''}taskonomy {self.parts.digest}"

    @cached_property
    def image_files(self) -> ImageFiles:
        """Made when `machine.cache` or the like asks for it: the paths of all files are many."""
        files = ImageFiles("taskonomy", self.folder)
        for domain in (RGB, *self.read):
            paths = [self.parts.path(domain.name, f) for f in self.parts.all_frames() if self.parts.has(domain.name, f)]
            files.group(domain.name, paths, partial(read_png, bits=domain.bits, channels=domain.channels))
        return files

    def reader(self, domain: Domain) -> Callable[[Path], np.ndarray]:
        """What reads a PNG of the domain: from the cache, where one was made."""
        if "image_files" in vars(self):
            return self.image_files.groups[domain.name]
        return partial(read_png, bits=domain.bits, channels=domain.channels)

    def _mask(self) -> Domain | None:
        """The domain that masks are made of; null: none, or each label's own values."""
        if not any(DOMAINS[task].masked for task in self.tasks):
            return None
        if values.VALIDITIES[self.validity] is not None:
            return ZBUFFER
        there = (self.folder / MASK.name).is_dir() or any(self.folder.glob(f"*/{MASK.name}"))
        return MASK if there else None

    def _facing(self) -> str:
        every = [frame for frame in self.parts.all_frames() if not self.parts.unlabelled("normals", frame)]
        return facing([self.parts.path("normal", frame) for frame in every[:: max(1, len(every) // 8)][:8]])


def facing(paths: Sequence[Path]) -> str:
    """Whether surfaces that face the viewer have "low" blue (a published dump of an original file) or "high" (the
    documentation) in files of normals. Raises ValueError where they do not agree.

    Of a surface that can be seen, n . ray < 0; where |z| > 0.75 that is z's sign, in images of up to 76 degrees.
    """
    domain, low, all_ = DOMAINS["normals"], 0, 0
    for path in paths:
        stored = read_png(path, domain.bits, domain.channels).astype(int)
        surface = np.abs(stored[..., 2] / 127.5 - 1) > 0.75
        low += int((stored[..., 2][surface] < 127.5).sum())
        all_ += int(surface.sum())
    share = low / all_ if all_ else 0.5
    if 0.1 < share < 0.9:
        raise ValueError(
            f"dataset.normals_z=viewer: in {len(paths)} files of normals, {paths[0] if paths else 'none'} first, "
            f"{100 * share:.0f} % of the surface has low blue: neither way faces the viewer. Use normals_z=stored."
        )
    return "low" if share > 0.5 else "high"


class TaskonomySplit(MapSplit):
    """Images of one part; its items are frames."""

    dataset: Taskonomy

    @property
    def frames(self) -> Sequence[Frame]:
        return self.items

    def targets(self, labels: Mapping[str, Label]) -> dict[str, Tensor]:
        """Labels as they are seen, normalised."""
        targets = super().targets(labels)
        for name in targets.keys() & values.CHANNELS.keys():
            targets[name] = values.normalised(name, self.dataset.normalisation, targets[name]).contiguous()
        return targets

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] uint8 and labels at full size, before any normalisation of them."""
        frame, data = self.frames[index], self.dataset
        pixels = np.array(data.reader(RGB)(data.parts.path(RGB.name, frame)))  # torch's own, writable
        present = [domain for domain in data.read if data.parts.has(domain.name, frame)]
        stored = {domain.name: self._stored(domain, frame, pixels.shape[:2]) for domain in present}
        labels = {task: self._label(task, frame, stored, pixels.shape[:2]) for task in data.tasks}
        return Image(torch.from_numpy(pixels).permute(2, 0, 1)), labels

    def _label(self, task: str, frame: Frame, stored: dict[str, np.ndarray], size: tuple[int, int]) -> Label:
        data, domain = self.dataset, DOMAINS[task]
        if data.parts.unlabelled(task, frame):
            return values.empty(task, size, data.scene_classes)
        if task == "scene":
            probabilities = read_probabilities(data.parts.path(domain.name, frame), values.PLACES)
            return values.scene(probabilities, data.scene_classes)
        own = stored[domain.name]
        if task == "semantic":
            if own.max() > len(values.SEMANTIC):
                raise ValueError(f"{data.parts.path(domain.name, frame)}: 0 to 17 are expected, found {own.max()}.")
            return values.classes(own, data.semantic_classes)
        valid = None
        if domain.masked:
            valid = values.valid(task, data.validity, own, stored.get(ZBUFFER.name), stored.get(MASK.name))
        blur = values.BLUR.get(data.normalisation, {}).get(task)
        return values.decoded(task, own, valid, blur, data.turned)

    def _stored(self, domain: Domain, frame: Frame, size: tuple[int, int]) -> np.ndarray:
        """p of a file, of the size of its image."""
        parts = self.dataset.parts
        path = parts.path(domain.name, frame)
        stored = self.dataset.reader(domain)(path)
        if stored.shape[:2] != size:
            found, wanted = (f"{h} x {w}" for h, w in (stored.shape[:2], size))
            raise ValueError(
                f"{path}: {found} is not the size of its image, {wanted} ({parts.path(RGB.name, frame)}). "
                f"Download both at the same resolution."
            )
        return stored


def _check(key: str, value: Any, allowed: Sequence) -> None:
    if value not in allowed:
        raise ValueError(f"dataset.{key}={value}: {' or '.join(map(str, allowed))} is expected.")


def _check_defined(normalisation: str, tasks: Sequence[str]) -> None:
    known = values.NORMALISATIONS[normalisation]
    undefined = [task for task in tasks if task in values.CHANNELS and task not in known]
    if undefined:
        others = [name for name, own in values.NORMALISATIONS.items() if undefined[0] in own]
        raise ValueError(
            f"dataset.normalisation={normalisation} says nothing of {', '.join(undefined)}. Choose another one "
            f"({', '.join(others)}) or other tasks: dataset.tasks=[...]."
        )
