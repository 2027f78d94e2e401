"""`python -m mtlbench.inspect dataset=...`: is a folder what it should be, and what do images and targets look like?

Every image is read with its labels; files that cannot be read, values that cannot be and parts of another size than
published are listed. Exit code 1 if there are any.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from mtlbench import build
from mtlbench import config as configuration
from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.inspecting import sheet
from mtlbench.inspecting.values import Seen, described, look
from mtlbench.progress import progress

PARTS = ("train", "val", "test")
LISTED = 20
"""Lines of trouble that are printed."""


class Finding(NamedTuple):
    """One image: its size (height, width), what its labels hold, what is wrong."""

    size: tuple[int, int] | None
    seen: dict[str, Seen]
    wrong: list[str]


@dataclass
class Found:
    """A part of the data."""

    images: int
    read: int = 0
    sizes: Counter = field(default_factory=Counter)
    seen: dict[str, Seen] = field(default_factory=dict)


class Looked(Dataset):
    """Some images of a part as `Finding`s."""

    def __init__(self, dataset: MultiTaskDataset, split: Split, indices: Sequence[int]):
        self.tasks, self.split, self.indices = dataset.tasks, split, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Finding:
        index = self.indices[place]
        try:
            image, labels = sample(self.split, index)
        except ValueError as error:
            return Finding(None, {}, [str(error)])
        seen, wrong = {}, []
        for name, label in labels.items():
            seen[name], reasons = look(label, self.tasks[name])
            wrong += [f"image {index}, {name}: {reason}" for reason in reasons]
        return Finding(tuple(image.shape[-2:]), seen, wrong)


def sample(split: Split, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """Image and labels as they are on disk; as they are trained on, where a split has them in memory."""
    return split.read(index) if hasattr(split, "read") else split[(0, index)]


def inspect_data(overrides: Sequence[str]) -> str:
    """Checks the folder, writes the sheet. Raises ValueError with the list of what is wrong."""
    config, choices = configuration.load_run(overrides, name="inspect_data")
    for key in ("check", "images"):
        if config[key] is not None and (not isinstance(config[key], int) or config[key] < 1):
            raise ValueError(f"{key}={config[key]}: a number from 1 is expected{' or null' * (key == 'check')}.")
    name = choices["dataset"]
    dataset = build.dataset(config)
    parts = {part: split for part in PARTS if (split := dataset.split(part)) is not None}
    print(
        f"{name} in {config.machine.data}{' (synthetic data)' * dataset.synthetic}: {_shortened(list(dataset.tasks))}"
    )
    print(dataset.fingerprint(), flush=True)
    wrong: list[str] = []
    found = {part: check(part, dataset, split, config, wrong) for part, split in parts.items()}
    wrong += list(compared(dataset, found))
    print("\n".join(table(dataset, found)), flush=True)
    file = Path(config.folder) / f"{name}.png"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.draw(dataset, parts["train"], config.images).save(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be written ({error.strerror}). Type folder=<a folder of yours>.") from error
    except ValueError as error:  # an image that cannot be read is in the list already
        if not wrong:
            raise
        print(f"no contact sheet: {str(error).splitlines()[0]}")
    else:
        print(f"contact sheet: {file}")
    if wrong:
        more = [f"... and {len(wrong) - LISTED:,} more"] * (len(wrong) > LISTED)
        raise ValueError("\n".join([f"{len(wrong):,} wrong:", *wrong[:LISTED], *more]))
    print("all is right" if config.check is None else f"all is right in {config.check} images of each part")
    return "done"


def check(part: str, dataset: MultiTaskDataset, split: Split, config: Any, wrong: list[str]) -> Found:
    """Reads a part; what is wrong is added to the list."""
    found = Found(len(split), seen={name: Seen() for name in dataset.tasks})
    number = min(config.check or len(split), len(split))
    indices = [i * len(split) // number for i in range(number)]
    looked = Looked(dataset, split, indices)
    loader = DataLoader(looked, batch_size=None, num_workers=config.machine.workers, collate_fn=_as_it_is)
    for finding in progress(loader, f"{part}: read", len(indices)):
        wrong += [f"{part}: {reason}" for reason in finding.wrong]
        found.read += finding.size is not None
        if finding.size is not None:
            found.sizes[finding.size] += 1
        for name, seen in finding.seen.items():
            found.seen[name].add(seen)
    return found


def _as_it_is(finding: Finding) -> Finding:
    return finding


def compared(dataset: MultiTaskDataset, found: dict[str, Found]) -> Iterator[str]:
    """How the parts differ from what was published, and what no image of them has."""
    for part, one in found.items():
        for name, seen in one.seen.items():
            if one.read and not seen.labelled:
                yield f"{part}: no image has a label for {name}"
    if dataset.synthetic:
        return
    for part, number in dataset.official.items():
        together = [part] if part != "train" or "val" in dataset.official else ["train", "val"]
        images = sum(found[name].images for name in together if name in found)
        if images != number:
            yield f"{part}: {images:,} images, where {number:,} are published. Unpack what is missing."
    shape = getattr(dataset, "image_shape", None)
    for part, one in found.items():
        for size, images in one.sizes.items():
            if shape is not None and size != tuple(shape[-2:]):
                yield f"{part}: {images:,} images of {_size(size)}, where {_size(shape[-2:])} is published"


def table(dataset: MultiTaskDataset, found: dict[str, Found]) -> Iterator[str]:
    """Lines for people: images and sizes of each part, values of each task."""
    for part, one in found.items():
        sizes = ", ".join(f"{_size(size)}{f' ({n:,})' * (len(one.sizes) > 1)}" for size, n in one.sizes.most_common(4))
        official = dataset.official.get(part)
        beside = f" (published: {official:,})" if official else ""
        yield f"\n{part}: {one.images:,} images{beside}, {one.read:,} read, {sizes or 'none'}"
        rows = [("task", "values", "labelled", "images without", "classes")]
        for name, seen in one.seen.items():
            values, share, classes = described(seen, dataset.tasks[name], tuple(dataset.words.get(name, ())))
            rows.append((name, values, share, f"{seen.empty:,}", classes))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        yield from ("  " + "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _size(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"
