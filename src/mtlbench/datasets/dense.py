"""What datasets of images on the disk have in common: parts, views, input values, fingerprints."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.tv_tensors import Image

from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.labels import Label
from mtlbench.seeds import seed_of
from mtlbench.sliding import Sliding
from mtlbench.transforms import DEVIATION, MEAN, see, whole

INPUTS = ("imagenet", "unit", "signed")
"""imagenet: minus the mean of ImageNet's images, over their deviation (the survey); unit: 0 to 1 (the MTAN family);
signed: -1 to 1 (Auto-Lambda)."""


class Source(Protocol):
    """What a `MapSplit` needs of its dataset."""

    seed: int
    size: tuple[int, int] | None
    augmentation: Any  # (image, labels, size) -> (image, labels)
    input: str

    def read(self, item: Any) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W], 0 to 255, uint8 or float32, and labels, as they are on disk."""


class MapDataset(MultiTaskDataset):
    """A dataset of maps, of which "semantic" are classes, evaluated in crops and mirrored as `evaluation` says."""

    evaluation: Sliding

    def predict(self, model: nn.Module, image: Tensor) -> dict[str, Tensor]:
        return self.evaluation(model, image, self.tasks, classes=("semantic",))


class MapSplit(Split):
    """Images of one part; a sample is (image [3, H, W] float32; {task: target})."""

    def __init__(self, dataset: Source, items: Sequence[Any], augmented: bool):
        self.dataset, self.items, self.augmented = dataset, items, augmented

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index = key
        image, labels = shown(self.dataset, *self.read(index), epoch, index, self.augmented)
        return network_input(image, self.dataset.input), self.targets(labels)

    def targets(self, labels: Mapping[str, Label]) -> dict[str, Tensor]:
        """What is trained on, of labels as they are seen."""
        return {name: label.as_subclass(Tensor).contiguous() for name, label in labels.items()}

    def read(self, index: int) -> tuple[Image, dict[str, Label]]:
        """Image [3, H, W] of 0 to 255 and labels, as they are on disk."""
        return self.dataset.read(self.items[index])


@contextmanager
def drawing(seed: int, epoch: int, index: int) -> Iterator[None]:
    """In it torch draws what belongs to this image in this epoch; outside of it its random state is what it was."""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator and takes no other
        torch.manual_seed(seed_of(seed, "augment", epoch, index))
        yield


def unchanged(
    image: Image, labels: Mapping[str, Label], size: tuple[int, int] | None
) -> tuple[Image, dict[str, Label]]:
    """All of an image [3, H, W] and its labels, at `size` or as they are."""
    view = whole(image, size)
    return see(image, view), {name: see(label, view) for name, label in labels.items()}


def shown(
    data: Source, image: Image, labels: Mapping[str, Label], epoch: int, index: int, augmented: bool
) -> tuple[Image, dict[str, Label]]:
    """What the network is shown of an image [3, H, W], and its labels, in an epoch; whole where it is not augmented."""
    if not augmented:
        return unchanged(image, labels, data.size)
    with drawing(data.seed, epoch, index):
        return data.augmentation(image, labels, data.size)


def network_input(image: Tensor, kind: str) -> Tensor:
    """Numbers of 0 to 255 [3, H, W] as float32 of one of INPUTS."""
    scaled = image.as_subclass(Tensor).to(torch.float32) / 255
    if kind == "imagenet":
        return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    return scaled if kind == "unit" else 2 * scaled - 1


def fingerprint(name: str, folder: Path, files: Mapping[str, int]) -> str:
    """Of a dataset's files {name below the folder: size}, and of the marker of synthetic data where there is one."""
    digest, marker = hashlib.sha256(), folder / "SYNTHETIC.json"
    if marker.exists():
        digest.update(marker.read_bytes())
    for file, size in sorted(files.items()):
        digest.update(f"{file}\0{size}\n".encode())
    return f"{'synthetic ' if marker.exists() else ''}{name} {digest.hexdigest()[:16]}"


def check_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """dataset.size as (height, width). Raises ValueError for what is no size."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"dataset.size={size}: [height, width] or null is expected.")
    return (size[0], size[1]) if size else None


def hold_out(name: str, items: Sequence[Any], number: int, seed: int) -> tuple[list[Any], list[Any]]:
    """(trained, held out) of the training items: `number` of them, drawn from `seed` alone.

    Raises ValueError where there are not enough.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < max(1, len(items)):
        raise ValueError(
            f"dataset.validation={number}: 0 to {len(items) - 1} of the {len(items):,} training images can be held out."
        )
    generator = torch.Generator().manual_seed(seed_of(name, "validation", seed))
    held = set(torch.randperm(len(items), generator=generator)[:number].tolist())
    return [x for i, x in enumerate(items) if i not in held], [x for i, x in enumerate(items) if i in held]


def archive_in(folder: Path) -> Path | None:
    """A file like nyuv2.zip that lies in or beside a folder that is expected to hold its contents."""
    ends = (".zip", ".tar", ".tgz", ".tar.gz")
    beside = [folder.with_name(folder.name + end) for end in ends]
    inside = sorted(p for p in folder.iterdir() if p.name.endswith(ends)) if folder.is_dir() else []
    return next((path for path in [*beside, *inside] if path.is_file()), None)
