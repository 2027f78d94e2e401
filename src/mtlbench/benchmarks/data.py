"""How fast a dataset is read and transformed. `python -m mtlbench.bench data dataset=cityscapes machine.data=<folder>`

Images per second of one worker: ours without and with the cache, beside a plain torchvision loader of the same files
and views, in turns. Keys are in conf/bench_data.yaml.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from omegaconf import DictConfig
from torch.utils.data import default_collate

from mtlbench import build
from mtlbench import config as configuration
from mtlbench.benchmarks import plain, table
from mtlbench.benchmarks.data_table import CACHED, OURS, PLAIN, Rate, write
from mtlbench.cache import Group
from mtlbench.dataset import MultiTaskDataset, collate
from mtlbench.seeds import seed_of
from mtlbench.transforms import Augmentation, View, needed, whole

Key = tuple[int, int]
Shares = tuple[float, float, float]


@dataclass
class Taken:
    """One round of one kind."""

    seconds: float
    cpu: float
    shares: Shares | None = None


class Ours:
    """Our reader, with or without the cache."""

    def __init__(self, dataset: MultiTaskDataset, batch_size: int):
        self.dataset, self.split, self.batch_size = dataset, dataset.split("train"), batch_size
        self.reading = 0.0
        self.read: list[tuple[Group, Path]] = []

    def everything(self, keys: Sequence[Key]) -> Shares:
        """Seconds of decoding, transforming and collating."""
        collating, begin = 0.0, time.perf_counter()
        self.reading = 0.0
        with self._watched():
            for start in range(0, len(keys), self.batch_size):
                part = keys[start : start + self.batch_size]
                batched = hasattr(self.split, "__getitems__")
                items = self.split.__getitems__(part) if batched else [self.split[key] for key in part]
                at = time.perf_counter()
                collate(items)
                collating += time.perf_counter() - at
        whole_time = time.perf_counter() - begin
        return self.reading, whole_time - self.reading - collating, collating

    def files(self, key: Key) -> list[tuple[Group, Path]]:
        """What is read for an image, the image's own file first."""
        self.read = []
        with self._watched():
            self.split[key]
        return list(self.read)

    def _watched(self):
        call = Group.__call__

        def timed(group: Group, path: Path) -> np.ndarray:
            begin = time.perf_counter()
            pixels = call(group, path)
            self.reading += time.perf_counter() - begin
            self.read.append((group, path))
            return pixels

        return mock.patch.object(Group, "__call__", timed)


def view_of(dataset: MultiTaskDataset, key: Key, size: tuple[int, int]) -> tuple[View, bool]:
    """What training sees of an image; all of it where the augmentation is of another kind."""
    epoch, index = key
    augmentation = getattr(dataset, "augmentation", None)
    wanted = getattr(dataset, "size", None)
    if not isinstance(augmentation, Augmentation):
        return whole(torch.empty(3, *size, device="meta"), wanted), False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(dataset.seed, "augment", epoch, index))
        return augmentation.draw(size, wanted)


def decode_and_crop(ours: Ours, keys: Sequence[Key], files: dict[Key, list[tuple[Group, Path]]]) -> None:
    """The arrays of what a view shows, of every file of an image."""
    for key in keys:
        window = None
        for group, path in files[key]:
            pixels = ours.dataset.image_files.groups[group.kind](path)
            if window is None:
                _, window = needed(view_of(ours.dataset, key, pixels.shape[:2])[0], pixels.shape[:2])
            np.array(pixels[window])


def plain_everything(ours: Ours, keys: Sequence[Key], files: dict[Key, list[tuple[Group, Path]]]) -> None:
    augmentation = getattr(ours.dataset, "augmentation", None)
    own = augmentation if isinstance(augmentation, Augmentation) else None
    for start in range(0, len(keys), ours.batch_size):
        items = []
        for key in keys[start : start + ours.batch_size]:
            group, first = files[key][0]
            size = SIZES.setdefault(first, group(first).shape[:2])
            items.append(plain.item([path for _, path in files[key]], *view_of(ours.dataset, key, size), own))
        default_collate(items)


SIZES: dict[Path, tuple[int, int]] = {}
"""Of the images, found while warming up."""


def plain_decode(keys: Sequence[Key], files: dict[Key, list[tuple[Group, Path]]]) -> None:
    for key in keys:
        plain.decoded([path for _, path in files[key]])


def bench_data(overrides: Sequence[str]) -> str:
    """Measures, prints and writes the table."""
    config, choices = configuration.load_run(overrides, name="bench_data")
    if min(config.images, config.warm_up) < 1 or config.rounds < 2:
        raise ValueError(
            f"images={config.images} warm_up={config.warm_up} rounds={config.rounds}: "
            f"expected at least 1 image, 1 to warm up and 2 rounds."
        )
    build.prepare(config.machine)
    facts = table.machine(torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="mtlbench-data-") as temporary:
        cache = Path(config.machine.cache or temporary)
        rows, what = measure(config, cache)
    described = f"{choices['dataset']}{what}, batches of {config.batch_size}"
    text = write(rows, facts, described, choices["dataset"], Path(config.folder))
    print(f"\n{text}\nfiles in {config.folder}")
    return "done"


def measure(config: DictConfig, cache: Path) -> tuple[list[Rate], str]:
    """The rows, and the data in words."""
    config = configuration.OmegaConf.merge(config, {"machine": {"cache": None}})
    ours = Ours(build.dataset(config), config.batch_size)
    if ours.split is None:
        raise ValueError("The dataset has no training part.")
    images = min(config.images, len(ours.split))
    keys = [(epoch, i * len(ours.split) // images) for epoch in range(config.rounds) for i in range(images)]
    rounds = [keys[i * images : (i + 1) * images] for i in range(config.rounds)]
    kinds: dict[tuple[str, str], Callable[[Sequence[Key]], Shares | None]] = {(OURS, "everything"): ours.everything}
    if ours.dataset.image_files is not None:
        files = {key: ours.files(key) for key in keys}
        cached = Ours(build.dataset(config), config.batch_size)
        for kind, group in cached.dataset.image_files.groups.items():
            used = {path for read in files.values() for its, path in read if its.kind == kind}
            group.paths = [path for path in group.paths if path in used]  # a cache of what is measured
        cached.dataset.image_files.keep_in(cache)
        kinds |= {
            (CACHED, "everything"): cached.everything,
            (PLAIN, "everything"): lambda keys: plain_everything(ours, keys, files),
            (OURS, "decode and crop"): lambda keys: decode_and_crop(ours, keys, files),
            (CACHED, "decode and crop"): lambda keys: decode_and_crop(cached, keys, files),
            (PLAIN, "decode and crop"): lambda keys: plain_decode(keys, files),
        }
    taken: dict[tuple[str, str], list[Taken]] = {kind: [] for kind in kinds}
    for run in kinds.values():
        run(rounds[0][: config.warm_up] if len(kinds) == 1 else rounds[0])
    for number, part in enumerate(rounds, start=1):
        for kind, run in kinds.items():
            taken[kind].append(_timed(run, part))
        print(f"round {number} of {config.rounds}", flush=True)
    size = " x ".join(map(str, ours.split[keys[0]][0].shape[-2:]))
    what = f"{' (synthetic data)' * ours.dataset.synthetic}, {images} training images seen at {size}, "
    return [rate(kind, taken, images) for kind in kinds], f"{what}{len(ours.dataset.tasks)} tasks"


def _timed(run: Callable[[Sequence[Key]], Shares | None], keys: Sequence[Key]) -> Taken:
    cpu, begin = time.process_time(), time.perf_counter()
    shares = run(keys)
    return Taken(time.perf_counter() - begin, time.process_time() - cpu, shares)


def rate(kind: tuple[str, str], taken: dict[tuple[str, str], list[Taken]], images: int) -> Rate:
    mine, its = taken[kind], taken.get((PLAIN, kind[1]))
    per_second = [images / x.seconds for x in mine]
    lower, middle, upper = statistics.quantiles(per_second, n=4, method="inclusive")
    ratio = statistics.median(b.seconds / a.seconds for a, b in zip(mine, its, strict=True)) if its else None
    shares: list[float | None] = [None, None, None]
    if mine[0].shares is not None:
        parts = [sum(x.shares[i] for x in mine) for i in range(3)]
        shares = [part / sum(parts) for part in parts]
    cpu = statistics.median(x.cpu for x in mine) / images
    return Rate(*kind, len(mine), middle, lower, upper, cpu, ratio, *shares)
