"""Synthetic faces in CelebA's format on disk.

tree=official: Img/img_align_celeba/{id:06d}.jpg, Anno/list_attr_celeba.txt, Anno/list_landmarks_align_celeba.txt,
Anno/list_bbox_celeba.txt, Anno/identity_CelebA.txt, Eval/list_eval_partition.txt. tree=torchvision: all of these in one
folder beside img_align_celeba. The first lines of the lists, their padding with blanks, and which ids belong to which
part are CelebA's; ids have gaps. Boxes are those of the whole image: there are no larger originals.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mtlbench.datasets.celeba_lists import ATTRIBUTES, LANDMARKS
from mtlbench.seeds import seed_of
from mtlbench.synthetic.face_paint import paint
from mtlbench.synthetic.faces import HEIGHT, WIDTH, Face, face, landmarks

PARTS = {"train": (1, 162_770), "val": (162_771, 182_637), "test": (182_638, 202_599)}
"""The first and the last id of each part."""

STEP = {"train": 37, "val": 31, "test": 29}
"""From one image's id to the next one's; prime to the number of ids of the part, so that none comes twice."""

TREES = {"official": ("Img", "Anno", "Eval"), "torchvision": ("", "", "")}
"""{tree: (folder of img_align_celeba, of the lists, of the list of parts)}"""


@dataclass(frozen=True)
class CelebA:
    """The files of `train` + `val` + `test` faces. A face is a function of (seed, split, index): the counts change no
    image and no name, nor does the tree.

    tree: official or torchvision. line_ends: lf, or crlf as copies that went through Windows have them.
    without: an attribute that no face has (what is the same everywhere has no wrong answers), null for none.
    Raises ValueError for options that cannot be written.
    """

    train: int
    val: int
    test: int
    tree: str
    line_ends: str
    without: str | None
    seed: int

    name = "celeba"
    version = 1

    def __post_init__(self) -> None:
        for split, least in (("train", 1), ("val", 0), ("test", 0)):
            found, (first, last) = getattr(self, split), PARTS[split]
            whole = isinstance(found, int) and not isinstance(found, bool)
            if not whole or not least <= found <= last - first + 1:
                raise ValueError(
                    f"dataset.{split}: expected a whole number from {least} to {last - first + 1}, found {found}. "
                    f"Type for example dataset.{split}=64."
                )
        for key, known in (("tree", (*TREES,)), ("line_ends", ("lf", "crlf")), ("without", (None, *ATTRIBUTES))):
            if getattr(self, key) not in known:
                names = ", ".join("null" if name is None else name for name in known)
                raise ValueError(f"dataset.{key}={getattr(self, key)}: expected one of {names}.")

    def items(self) -> list[tuple[str, int]]:
        """(split, index) of every image."""
        return [(split, index) for split in PARTS for index in range(getattr(self, split))]

    def images(self, folder: Path) -> list[Path]:
        """The image files that a complete folder holds."""
        return [self.path(folder, *item) for item in self.items()]

    def path(self, folder: Path, split: str, index: int) -> Path:
        return folder / TREES[self.tree][0] / "img_align_celeba" / file_name(split, index)

    def face(self, split: str, index: int) -> Face:
        return face(np.random.default_rng(seed_of(self.seed, "celeba", split, index)), self.without)

    def write(self, folder: Path, split: str, index: int) -> None:
        """One image, and with the first one the lists of all."""
        path = self.path(folder, split, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paint(self.face(split, index))).save(path, quality=92)
        if (split, index) == self.items()[0]:
            self.write_lists(folder)

    def write_lists(self, folder: Path) -> None:
        _, anno, evaluation = TREES[self.tree]
        items = sorted(self.items(), key=lambda item: file_name(*item))
        faces = {file_name(*item): (number, self.face(*item)) for number, item in enumerate(items, 1)}
        parts = {file_name(*item): list(PARTS).index(item[0]) for item in items}
        points = " ".join(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
        lists = {
            (anno, "list_attr_celeba"): [
                str(len(items)),
                " ".join(ATTRIBUTES) + " ",
                *(
                    f"{name} {_row((1 if a in one.has else -1 for a in ATTRIBUTES), 2)}"
                    for name, (_, one) in faces.items()
                ),
            ],
            (anno, "list_landmarks_align_celeba"): [
                str(len(items)),
                points + " ",
                *(f"{name} {_row((v for xy in landmarks(one) for v in xy), 4)}" for name, (_, one) in faces.items()),
            ],
            (anno, "list_bbox_celeba"): [
                str(len(items)),
                "image_id x_1 y_1 width height",
                *(f"{name} {_row((0, 0, WIDTH, HEIGHT), 7)}" for name in faces),
            ],
            (anno, "identity_CelebA"): [f"{name} {number}" for name, (number, _) in faces.items()],
            (evaluation, "list_eval_partition"): [f"{name} {part}" for name, part in parts.items()],
        }
        for (place, stem), lines in lists.items():
            path = folder / place / f"{stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), newline="\n" if self.line_ends == "lf" else "\r\n")


def file_name(split: str, index: int) -> str:
    """NNNNNN.jpg: ids with gaps, in no order, within the part's range of CelebA's own."""
    first, last = PARTS[split]
    return f"{first + STEP[split] * index % (last - first + 1):06d}.jpg"


def _row(values: Iterable[int], width: int) -> str:
    """Numbers padded with blanks, so that several of them separate two numbers, as in CelebA's lists."""
    return " ".join(f"{value:{width}d}" for value in values)
