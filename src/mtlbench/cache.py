"""Decoded image files, memory-mapped, where `machine.cache=<folder>` asks for it. It changes no number.

A dataset that reads image files takes part so:

    self.image_files = ImageFiles("celeba", folder)              in its constructor; `build.dataset` looks for it
    self.photos = self.image_files.group("photos", paths, read)              all files of one kind that may be read
    pixels = self.photos(path)                                          in the place of read(path)

`read` is a function of a path, as `partial(read_image, mode="RGB")` of images.py: [H, W] or [H, W, C] of uint8 or
uint16, nothing but what the file holds, ValueError for a broken one. With a cache the array is a window into it that
cannot be written: cut out what is needed (only that is read from the disk), then copy. A file that cannot be read, is
missing, or is unlike the others of its kind is not kept: `read` is called for it, and raises what it raises without.

One kind is one folder `<cache>/<dataset>/<kind>-<hash>`, so that runs of different tasks share it. The hash is of
the list of files: names, sizes and times of change. pixels.bin, the arrays one after another, has its name only when
it is whole; while it is written it is pixels.partial, and synced.json says how much of it is sure to be on the disk.
"""

import fcntl
import hashlib
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.features

from mtlbench.images import size_of
from mtlbench.progress import progress

FORMAT = 1
ALIGNMENT = 64
SYNC_EVERY = 2**28
"""Bytes after which the written part is made sure."""


class ImageFiles:
    """The image files that a dataset named `name` reads, all below `folder`, in groups."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, Path(folder)
        self.groups: dict[str, Group] = {}

    def group(self, kind: str, paths: Iterable[Path], read: Callable[[Path], np.ndarray]) -> "Group":
        """The files of one kind, in an order that is a function of the data alone; to be called with a path."""
        assert kind not in self.groups, kind
        self.groups[kind] = Group(kind, self.folder, paths, read)
        return self.groups[kind]

    def keep_in(self, cache: Path) -> None:
        """Writes what the cache lacks, then reads from there.

        Waits for another process that is writing. Raises ValueError where the disk is too small, or cannot be written.
        """
        folder = Path(cache) / self.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lacking = [group for group in self.groups.values() if not group.open(folder)]
            _check_room(folder, {group.kind: group.lacking() for group in lacking})
            for group in lacking:
                group.write()
        except OSError as error:
            raise ValueError(
                f"machine.cache={cache}: cannot be written ({error.strerror or error}). "
                f"Name a folder of yours on a local disk, or type machine.cache=null."
            ) from error


class Group:
    """Files of one kind. Called with a path: its array, decoded or from the cache."""

    def __init__(self, kind: str, folder: Path, paths: Iterable[Path], read: Callable[[Path], np.ndarray]):
        self.kind, self.folder, self.read = kind, folder, read
        self.paths = list(dict.fromkeys(paths))
        self.place: Path | None = None  # of the cache, when it is whole
        self.pixels: np.ndarray | None = None
        self.plan: Plan | None = None

    def __call__(self, path: Path) -> np.ndarray:
        if self.place is None:
            return self.read(path)
        if self.pixels is None:
            self._map()
        number = self.numbers[os.fspath(path)]
        if not self.plan.kept[number]:
            return self.read(path)
        start, shape = self.plan.starts[number], self.plan.shape(number)
        return self.pixels[start : start + self.plan.bytes[number]].view(self.plan.dtype).reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "pixels": None}  # a worker maps the file itself

    def open(self, folder: Path) -> bool:
        """Whether the cache in `folder` is whole; then it is used from here on."""
        sources = b"".join(_source(path, self.folder) for path in self.paths)
        decoders = f"{PIL.__version__} {PIL.features.version('jpg')}" if _lossy(self.paths) else ""
        digest = hashlib.sha256(f"{FORMAT}\0{decoders}\0".encode() + sources).hexdigest()
        self.wanted = folder / f"{self.kind}-{digest[:16]}"
        return self._use()

    def _use(self) -> bool:
        plan = Plan.load(self.wanted / "index.npz", len(self.paths))
        if plan is None or _size(self.wanted / "pixels.bin") != plan.total:
            return False
        self.plan, self.place = plan, self.wanted
        self.numbers = {os.fspath(path): number for number, path in enumerate(self.paths)}
        return True

    def _map(self) -> None:
        file = self.place / "pixels.bin"
        self.pixels = np.asarray(np.memmap(file, np.uint8, "r")) if self.plan.total else np.empty(0, np.uint8)

    def lacking(self) -> int:
        """Bytes that are still to be written."""
        self.plan = Plan.make(self.paths, self.read)
        return max(0, self.plan.total - (_size(self.wanted / "pixels.partial") or 0))

    def write(self) -> None:
        """Writes the cache, or goes on where another process left it."""
        self.wanted.mkdir(exist_ok=True)
        with _only_writer(self.wanted):
            if self._use():  # another process wrote it
                return
            if _size(self.wanted / "pixels.bin") is not None:
                warnings.warn(f"{self.wanted} is damaged, and is written again.", stacklevel=2)
                (self.wanted / "pixels.bin").unlink()
            self._fill()
            os.replace(self.wanted / "pixels.partial", self.wanted / "pixels.bin")
            (self.wanted / "synced.json").unlink()
            assert self._use(), self.wanted

    def _fill(self) -> None:
        partial, plan = self.wanted / "pixels.partial", self.plan
        done = self._resumed()
        said = f"cache of {self.kind} in {self.wanted}"
        with open(partial, "r+b" if done else "wb", buffering=0) as file:
            try:
                file.truncate(plan.end(done))
                file.seek(plan.end(done))
                sure = done
                for number, pixels in progress(self._decoded(done), said, len(self.paths) - done):
                    plan.kept[number] &= pixels is not None
                    data = pixels.tobytes() if plan.kept[number] else b""
                    _write(file, data + bytes(plan.end(number + 1) - plan.end(number) - len(data)))
                    done = number + 1
                    if plan.end(done) - plan.end(sure) > SYNC_EVERY:
                        sure = self._sync(file, done)
                self._sync(file, done)
            except OSError as error:  # full: give the others their disk back
                for left in ("pixels.partial", "synced.json"):
                    (self.wanted / left).unlink(missing_ok=True)
                raise ValueError(
                    f"machine.cache: {partial} could not be written ({error.strerror}); what was there is removed. It "
                    f"needs {_readable(plan.total)}. Free the disk, name another folder, or type machine.cache=null."
                ) from error
            except BaseException:
                self._sync(file, done)
                raise
        with open(self.wanted / "index.partial", "wb") as file:
            plan.save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.wanted / "index.partial", self.wanted / "index.npz")

    def _resumed(self) -> int:
        """How many files an earlier attempt has left on the disk; notes which it did not keep."""
        try:
            state = json.loads((self.wanted / "synced.json").read_text())
            done, left_out = state["done"], state["left_out"]
        except (FileNotFoundError, ValueError, KeyError):
            return 0
        if (_size(self.wanted / "pixels.partial") or 0) < self.plan.end(done):
            return 0
        self.plan.kept[left_out] = False
        return done

    def _sync(self, file: Any, done: int) -> int:
        file.flush()
        os.fsync(file.fileno())
        state = {"done": done, "left_out": np.flatnonzero(~self.plan.kept[:done]).tolist()}
        beside = self.wanted / "synced.partial"
        beside.write_text(json.dumps(state))
        os.replace(beside, self.wanted / "synced.json")
        return done

    def _decoded(self, first: int) -> Iterator[tuple[int, np.ndarray | None]]:
        """(number, array or None where it is not kept) of all files from `first` on, decoded by several threads."""
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(first, len(self.paths), 4 * threads):  # in parts: what is decoded waits in memory
                numbers = range(start, min(start + 4 * threads, len(self.paths)))
                yield from zip(numbers, pool.map(self._one, numbers), strict=True)

    def _one(self, number: int) -> np.ndarray | None:
        if not self.plan.kept[number]:
            return None
        try:
            pixels = self.read(self.paths[number])
        except ValueError:
            return None
        same = pixels.dtype == self.plan.dtype and pixels.shape == self.plan.shape(number)
        return pixels if same else None


class Plan:
    """Where each file's array is in pixels.bin.

    sizes: (height, width) [N, 2]; channels: 0 for [H, W]; kept [N]: which files are there at all.
    """

    def __init__(self, sizes: np.ndarray, channels: int, dtype: Any, kept: np.ndarray):
        self.sizes, self.channels, self.dtype, self.kept = sizes, channels, np.dtype(dtype), kept
        self.bytes = sizes.prod(1) * max(1, channels) * self.dtype.itemsize
        ends = np.cumsum(-(-self.bytes // ALIGNMENT) * ALIGNMENT)
        self.starts = np.concatenate([[0], ends]).astype(np.int64)
        self.total = int(self.starts[-1])

    def end(self, done: int) -> int:
        return int(self.starts[done])

    def shape(self, number: int) -> tuple[int, ...]:
        height, width = self.sizes[number].tolist()
        return (height, width, self.channels) if self.channels else (height, width)

    @classmethod
    def make(cls, paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> "Plan":
        """From the first bytes of all files, and the whole of one."""
        found = [size_of(path) for path in paths]
        sample = _first(read, (path for path, size in zip(paths, found, strict=True) if size))
        kept = np.array([size is not None and sample is not None for size in found], dtype=bool)
        sizes = np.array([size if keep else (0, 0) for size, keep in zip(found, kept, strict=True)], np.int64)
        if sample is None:
            return cls(sizes.reshape(-1, 2), 0, np.uint8, kept)
        return cls(sizes.reshape(-1, 2), sample.shape[2] if sample.ndim == 3 else 0, sample.dtype, kept)

    def save(self, file: Any) -> None:
        about = np.array([FORMAT, self.channels, self.dtype.itemsize], np.int64)
        np.savez(file, about=about, sizes=self.sizes, kept=self.kept)

    @classmethod
    def load(cls, path: Path, count: int) -> "Plan | None":
        """None where there is none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                about, sizes, kept = (stored[key] for key in ("about", "sizes", "kept"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if sizes.shape != (count, 2) or kept.shape != (count,) or about[0] != FORMAT:
            return None
        return cls(sizes, int(about[1]), {1: np.uint8, 2: np.uint16}[int(about[2])], kept)


def _first(read: Callable[[Path], np.ndarray], paths: Iterable[Path]) -> np.ndarray | None:
    """The first file that can be read."""
    for path in paths:
        try:
            pixels = read(path)
        except ValueError:
            continue
        assert pixels.dtype in (np.uint8, np.uint16), f"{path}: {pixels.dtype} is not what a file holds"
        return pixels
    return None


def _source(path: Path, folder: Path) -> bytes:
    """What must be the same for a file to be the same."""
    try:
        found = path.stat()
    except OSError:
        return f"{path.relative_to(folder)}\0missing\n".encode()
    return f"{path.relative_to(folder)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode()


def _lossy(paths: Sequence[Path]) -> bool:
    """Whether another version of the decoder may give other numbers."""
    return any(path.suffix.lower() not in (".png", ".bmp", ".pgm", ".ppm") for path in paths)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _write(file: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _check_room(folder: Path, lacking: Mapping[str, int]) -> None:
    needed, free = sum(lacking.values()), shutil.disk_usage(folder).free
    if needed > free:
        each = ", ".join(f"{kind} {_readable(size)}" for kind, size in lacking.items())
        older = sorted(path.name for path in folder.iterdir())
        there = f" There already, maybe of older data: {', '.join(older)}." if older else ""
        raise ValueError(
            f"machine.cache: {_readable(needed)} are needed in {folder} ({each}), {_readable(free)} are free.{there} "
            f"Free the disk, name another folder, or type machine.cache=null."
        )


def _readable(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other process is here; the lock of a process that dies is free at once."""
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another process that writes the cache.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
