"""CelebA: 40 attributes of faces, each a task, and five landmarks (Liu et al. 2015).

Licence: for research that is not commercial; no redistribution of the images (the authors' page says so in full).
Obtain img_align_celeba.zip, list_eval_partition.txt and the lists of the folder Anno from
mmlab.ie.cuhk.edu.hk/projects/CelebA.html, unpack the images, and put all under <machine.data>/celeba in the authors'
tree,
    Img/img_align_celeba/000001.jpg ...   Anno/list_attr_celeba.txt   Anno/list_landmarks_align_celeba.txt
    Eval/list_eval_partition.txt
or in torchvision's, where the lists lie beside the folder img_align_celeba:
`torchvision.datasets.CelebA("<machine.data>", download=True)` makes that one. Lists of tasks that are left out are not
read. `python -m mtlbench.synthesize dataset=celeba` writes a small synthetic set.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from mtlbench.cache import ImageFiles
from mtlbench.dataset import Batch, MultiTaskDataset, Split, select_tasks
from mtlbench.datasets.celeba_lists import (
    ATTRIBUTE_LIST,
    ATTRIBUTES,
    LANDMARK_LIST,
    LANDMARKS,
    OFFICIAL,
    PARTS,
    find_images,
    find_list,
    read_attributes,
    read_landmarks,
    read_parts,
    rows_of,
)
from mtlbench.datasets.dense import INPUTS, check_size, fingerprint, network_input, shown
from mtlbench.labels import Label, Landmarks, WholeImage, partners
from mtlbench.losses import L1, MSE, BinaryCrossEntropy, CrossEntropy
from mtlbench.metrics import Accuracy, BinaryAccuracy, LandmarkDistance
from mtlbench.task import Task
from mtlbench.transforms import Augmentation

HEIGHT, WIDTH = 218, 178
GROUPS = {"eye": (0, 1), "nose": (2,), "mouth": (3, 4)}


class CelebA(MultiTaskDataset):
    """The official parts as "train", "val" and "test" (162,770, 19,867 and 19,962 images).

    tasks: names of attributes as in the list, "attributes" (all 40 in one task, LSB), "landmarks" (LSB); null for the
        40 attributes, each a task of its own (MGDA, IMTL, the survey, Elich et al. 2023).
    size: [height, width] of what is seen; null for 218 x 178 as they are (IMTL). [64, 64] (MGDA, Elich et al.) and
        [224, 224] (the survey) change the ratio of the sides; numbers at different sizes cannot be compared.
    augmentation: of training images, see `transforms.Augmentation`. Mirroring changes no attribute, and exchanges the
        left and the right landmarks.
    input: imagenet, unit or signed: see `datasets.dense.INPUTS`. No paper says.
    report: the part whose numbers are reported as "test": "test" (MGDA, Elich et al.), or "validation" (IMTL): then
        there is no "val" part, so that nothing can be chosen on what is reported.
    attribute_loss: "bce", one logit for each attribute (IMTL, the survey), or "softmax" over two (MGDA: the same
        decisions, other gradients). "attributes" has bce alone.
    divide_by: of "attributes": "terms" is the mean over attributes, "images" adds them up. Unsaid in LSB.
    metric: "accuracy" or "error" (MGDA), in percent of each attribute; "attributes" has the mean over the 40.
    landmark_loss: "l1" or "mse" of the coordinates. Unsaid in LSB.
    landmark_unit: of landmark targets: "sides", shares of the image's sides from its middle (-0.5 to 0.5), so that a
        network begins near them, or "pixels" of what is seen. Unsaid in LSB. Distances are reported in pixels of the
        218 x 178 image in any case.

    Targets: attributes [] uint8 0 or 1 ("attributes" [40]); landmarks [10], x and y of `LANDMARKS` in turn, NaN where
    augmentation has moved a point out of the image.
    Raises ValueError for what is missing, damaged or does not fit together, naming the file.
    """

    image_shape = (3, 218, 178)
    words = MappingProxyType({"attributes": ATTRIBUTES, "landmarks": LANDMARKS})

    def __init__(
        self,
        folder: Path,
        seed: int,
        augmentation: Augmentation,
        tasks: Sequence[str] | None = None,
        size: Sequence[int] | None = None,
        input: str = "imagenet",
        report: str = "test",
        attribute_loss: str = "bce",
        divide_by: str = "terms",
        metric: str = "accuracy",
        landmark_loss: str = "l1",
        landmark_unit: str = "sides",
    ):
        _check("input", input, INPUTS)
        _check("report", report, ("test", "validation"))
        _check("attribute_loss", attribute_loss, ("bce", "softmax"))
        _check("divide_by", divide_by, ("terms", "images"))
        _check("metric", metric, ("accuracy", "error"))
        _check("landmark_loss", landmark_loss, ("l1", "mse"))
        _check("landmark_unit", landmark_unit, ("sides", "pixels"))
        self.folder, self.seed, self.augmentation = Path(folder) / "celeba", seed, augmentation
        self.official = OFFICIAL if report == "test" else {"train": OFFICIAL["train"], "test": OFFICIAL["val"]}
        self.size, self.input, self.report, self.landmark_unit = check_size(size), input, report, landmark_unit
        height, width = self.size or (HEIGHT, WIDTH)
        pixel = (WIDTH, HEIGHT) if landmark_unit == "sides" else (WIDTH / width, HEIGHT / height)
        available = {name: _attribute(name, attribute_loss, metric) for name in ATTRIBUTES}
        available["attributes"] = Task(
            "attributes", len(ATTRIBUTES), BinaryCrossEntropy(divide_by), [BinaryAccuracy(metric)], "vector"
        )
        loss = L1() if landmark_loss == "l1" else MSE()
        available["landmarks"] = Task("landmarks", 2 * len(LANDMARKS), loss, [FaceDistance(pixel)], "vector")
        self.tasks = select_tasks(available, ATTRIBUTES if tasks is None else tasks, "celeba")
        if attribute_loss == "softmax" and "attributes" in self.tasks:
            raise ValueError(
                "dataset.attribute_loss=softmax: the task attributes has bce alone. Name single attributes."
            )
        self.synthetic = (self.folder / "SYNTHETIC.json").exists()
        self._read_lists()

    def split(self, name: str) -> Split | None:
        parts = {"train": 0, "val": 1, "test": 2}
        if self.report == "validation":
            parts = {"train": 0, "val": None, "test": 1}
        rows = np.flatnonzero(self.part == parts[name]) if parts[name] is not None else []
        return CelebASplit(self, rows, augmented=name == "train") if len(rows) else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint("celeba", self.folder, self.files)

    def _read_lists(self) -> None:
        """Names of the images, their parts, and the values of the tasks: all that is not in the images."""
        parts = read_parts(find_list(self.folder, PARTS))
        lists = [parts.path]
        self.names, self.part = parts.names, parts.values[:, 0]
        if not (self.part == 0).any():
            raise ValueError(f"celeba: {parts.path}: there are no training images (part 0) in it. Download it again.")
        self.attributes = self.points = None
        if set(self.tasks) - {"landmarks"}:
            table = read_attributes(find_list(self.folder, ATTRIBUTE_LIST))
            self.attributes = torch.from_numpy((rows_of(parts, table) > 0).astype(np.uint8))
            lists.append(table.path)
        if "landmarks" in self.tasks:
            table = read_landmarks(find_list(self.folder, LANDMARK_LIST))
            self.points = torch.from_numpy(rows_of(parts, table).astype(np.float32)).reshape(-1, len(LANDMARKS), 2)
            lists.append(table.path)
        self.images, sizes = find_images(self.folder)
        missing = [name for name in self.names if name not in sizes]
        if missing:
            raise ValueError(
                f"celeba: {self.images / missing[0]} is missing, an image of {parts.path}"
                f"{f' ({len(missing):,} are)' if len(missing) > 1 else ''}. Unpack img_align_celeba.zip again."
            )
        self.image_files = ImageFiles("celeba", self.folder)
        self.photos = self.image_files.group("photos", [self.images / name for name in self.names], read_image)
        files = {self.images / name: sizes[name] for name in self.names} | {path: path.stat().st_size for path in lists}
        self.files = {path.relative_to(self.folder).as_posix(): size for path, size in files.items()}


class CelebASplit(Split):
    """Images of one part; an item is (image [3, H, W] float32, {task: target})."""

    def __init__(self, dataset: CelebA, rows: np.ndarray, augmented: bool):
        self.dataset, self.rows, self.augmented = dataset, torch.as_tensor(rows), augmented

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self.__getitems__([key])
        return batch.image[0], {name: target[0] for name, target in batch.targets.items()}

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A whole batch: 40 targets are cut out of one table, not stacked 40 times."""
        data, rows = self.dataset, self.rows[[index for _, index in keys]]
        seen = [self._seen(*key) for key in keys]
        targets = {}
        for name in data.tasks:
            if name == "landmarks":
                targets[name] = torch.stack([points for _, points in seen])
            elif name == "attributes":
                targets[name] = data.attributes[rows]
            else:
                targets[name] = data.attributes[rows, ATTRIBUTES.index(name)]
        return Batch(torch.stack([image for image, _ in seen]), targets)

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, 218, 178] uint8 and labels, as they are on disk."""
        image, points = self._read(index)
        row, labels = self.rows[index], {}
        for name in self.dataset.tasks:
            if name == "landmarks":
                labels[name] = points
            else:
                column = slice(None) if name == "attributes" else ATTRIBUTES.index(name)
                labels[name] = WholeImage(self.dataset.attributes[row, column])
        return image, labels

    def _read(self, index: int) -> tuple[Image, Landmarks | None]:
        data, row = self.dataset, int(self.rows[index])
        pixels = torch.from_numpy(np.array(data.photos(data.images / data.names[row]))).permute(2, 0, 1)
        points = None if data.points is None else Landmarks(data.points[row], (HEIGHT, WIDTH), partners(LANDMARKS))
        return Image(pixels), points

    def _seen(self, epoch: int, index: int) -> tuple[Tensor, Tensor | None]:
        data = self.dataset
        image, points = self._read(index)
        labels = {} if points is None else {"landmarks": points}
        image, labels = shown(data, image, labels, epoch, index, self.augmented)
        return network_input(image, data.input), self._target(labels["landmarks"]) if labels else None

    def _target(self, points: Landmarks) -> Tensor:
        """[10] from points [5, 2] in pixels of what is seen."""
        height, width = points.canvas
        plain = points.as_subclass(Tensor)
        if self.dataset.landmark_unit == "sides":
            plain = (plain + 0.5) / plain.new_tensor([width, height]) - 0.5
        return plain.flatten()


class FaceDistance(LandmarkDistance):
    """Mean distances of the eyes, the nose and the corners of the mouth (LSB, Lee et al. 2021, Table 7).

    pixel: (x, y) of pixels of the 218 x 178 image for one unit of prediction and target.
    """

    def __init__(self, pixel: tuple[float, float]):
        super().__init__("px", GROUPS)
        self.pixel = pixel
        self.metrics = self.metrics[1:]  # without the distance of all points: the paper has none

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        pixel = prediction.new_tensor(self.pixel).repeat(len(LANDMARKS))
        return super().sums(prediction * pixel, target * pixel)

    def of(self, sums: Tensor) -> Tensor:
        return super().of(sums)[1:]


def read_image(path: Path) -> np.ndarray:
    """An aligned image [218, 178, 3] uint8. Raises ValueError for one that is missing, damaged or of another size."""
    try:
        with PIL.Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except PermissionError as error:
        raise ValueError(f"celeba: {path}: may not be read ({error.strerror}). Type: chmod a+r {path}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises, by where the file breaks off
        raise ValueError(f"celeba: {path}: this image cannot be read ({error}). Unpack it again.") from error
    if pixels.shape != (HEIGHT, WIDTH, 3):
        raise ValueError(
            f"celeba: {path}: an aligned image of {WIDTH} x {HEIGHT} is expected, found {pixels.shape[1]} x "
            f"{pixels.shape[0]}. Unpack img_align_celeba.zip, not the images in the wild, and do not resize it."
        )
    return pixels


def _attribute(name: str, loss: str, metric: str) -> Task:
    if loss == "bce":
        return Task(name, 1, BinaryCrossEntropy(), [BinaryAccuracy(metric)], "vector")
    return Task(name, 2, CrossEntropy(), [Accuracy(report=metric)], "vector")


def _check(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"dataset.{key}={value}: {' or '.join(allowed)} is expected.")
