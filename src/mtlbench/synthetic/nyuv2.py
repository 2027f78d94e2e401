"""Synthetic rooms in NYUv2's format on disk.

nyu_depth_v2_labeled.mat (HDF5 as MATLAB 7.3 writes it, axes reversed, strings by reference), splits.mat,
classMapping40.mat and class13Mapping.mat (MATLAB 5), and normals_gt/{normals,masks}/{index:04d}.png. Names of classes
that never occur are made up; the intrinsics are the toolbox's, scaled to the written image.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from mtlbench.datasets.nyuv2 import VALID
from mtlbench.datasets.nyuv2_classes import CLASSES, LABELS, NAMES_13, mapping_13, mapping_40, numbers
from mtlbench.datasets.nyuv2_files import FILE
from mtlbench.datasets.nyuv2_normals import AXES
from mtlbench.seeds import seed_of
from mtlbench.synthetic.furniture import Thing
from mtlbench.synthetic.indoor import View, numbered, room, view
from mtlbench.synthetic.paint import noise

SHINY = (Thing.WINDOW, Thing.MIRROR, Thing.TELEVISION, Thing.SINK)
"""What the depth sensor does not see."""

FRAME = 8
"""Of the white frame around each image, pixels of 480 rows."""

PARTS = ".parts"


@dataclass(frozen=True)
class NYUv2:
    """The files of `train` + `test` rooms of height x width pixels, with the archive of normals or without. An image is
    a function of (seed, index, height, width).

    Raises ValueError for sizes or counts that cannot be written.
    """

    height: int
    width: int
    train: int
    test: int
    archive: bool
    seed: int

    name = "nyuv2"
    version = 1

    def __post_init__(self) -> None:
        check_counts({"height": (self.height, 48), "width": (self.width, 64)})
        check_counts({"train": (self.train, 1), "test": (self.test, 0)})

    def items(self) -> list[tuple[int]]:
        return [(index,) for index in range(self.train + self.test)]

    def images(self, folder: Path) -> list[Path]:
        """The files that a complete folder holds."""
        found = [folder / name for name in (FILE, "splits.mat", "classMapping40.mat", "class13Mapping.mat")]
        kinds = ("normals", "masks") if self.archive else ()
        return found + [
            folder / "normals_gt" / kind / f"{index:04d}.png" for kind in kinds for (index,) in self.items()
        ]

    def parts(self) -> tuple[list[int], list[int]]:
        """(training, test) images, from 0: those of the test are spread among the others."""
        number = self.train + self.test
        test = sorted({(2 * k + 1) * number // (2 * self.test) for k in range(self.test)})
        return [i for i in range(number) if i not in test], test

    def write(self, folder: Path, index: int) -> None:
        """What belongs to one image, beside the file that will hold it."""
        seen = photographed(self.seed, "nyuv2", index, self.height, self.width)
        raw = raw_depth(seen, np.random.default_rng(seed_of(self.seed, "nyuv2 depth", index)))
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        arrays = {"images": seen.image, "labels": seen.labels, "instances": seen.instances}
        np.savez(folder / PARTS / f"{index:04d}.npz", **arrays, depths=seen.depth, rawDepths=raw)
        if self.archive:
            colours, valid = archived(seen.normals, raw > 0)
            for kind, pixels in (("normals", colours), ("masks", valid)):
                path = folder / "normals_gt" / kind / f"{index:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)

    def finish(self, folder: Path) -> None:
        """Puts what was written into one file, and writes the others."""
        write_labeled(folder / FILE, folder / PARTS, self)
        shutil.rmtree(folder / PARTS)
        train, test = (np.array(part, np.uint16).reshape(-1, 1) + np.uint16(1) for part in self.parts())
        write_mat(folder / "splits.mat", {"trainNdxs": train, "testNdxs": test})
        names = [name for name, *_ in CLASSES]
        write_mat(folder / "classMapping40.mat", {"mapClass": mapping_40()[None], "className": cell(names)})
        struct = {"labels13": mapping_13()[None], "classNames": cell(NAMES_13)}
        write_mat(folder / "class13Mapping.mat", {"classMapping13": struct})


def check_counts(options: dict[str, tuple[Any, int]]) -> None:
    """Raises ValueError where an option {name: (value, least)} is no whole number of at least that."""
    for key, (found, least) in options.items():
        if not isinstance(found, int) or isinstance(found, bool) or found < least:
            raise ValueError(
                f"dataset.{key}: expected a whole number of at least {least}, found {found}. "
                f"Type for example dataset.{key}={max(least, 8)}."
            )


def photographed(seed: int, split: str, index: int, height: int, width: int) -> View:
    """A room as NYUv2 has it: a white frame around the image, no labels in a wider one, between things, and here and
    there."""
    scene = room(seed, split, index)
    seen = view(scene, scene.camera(height, width), height, width)
    rng = np.random.default_rng(seed_of(seed, "labels", split, index))
    image, labels = seen.image.copy(), seen.labels.copy()
    frame = max(1, round(FRAME * height / 480))
    inner = np.zeros((height, width), bool)
    inner[frame:-frame, frame:-frame] = True
    image[~inner] = 255
    owner = seen.labels.astype(np.int32) * 64 + seen.instances
    labels[boundary(owner)] = 0
    v, u = np.mgrid[0:height, 0:width].astype(np.float32) * (12 / height)
    blobs = noise(u, v, int(rng.integers(2**31)))
    labels[(blobs > np.quantile(blobs, 0.95)) | ~valid_region(height, width)] = 0
    instances = np.where(labels > 0, numbered(labels, seen.instances), 0).astype(np.uint8)
    return replace(seen, image=image, labels=labels, instances=instances)


def boundary(owner: ndarray) -> ndarray:
    """Which pixels [H, W] have another owner to their right or below: where annotators leave a gap. Half of all."""
    found = np.zeros(owner.shape, bool)
    found[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    found[:-1] |= owner[:-1] != owner[1:]
    rows, columns = np.indices(owner.shape)
    return found & ((rows // 3 + columns // 3) % 2 == 0)


def valid_region(height: int, width: int) -> ndarray:
    """Where labels and depth are [H, W]: `VALID` of a whole image, scaled."""
    found = np.zeros((height, width), bool)
    top, bottom = (round(row * height / 480) for row in VALID[:2])
    left, right = (round(column * width / 640) for column in VALID[2:])
    found[top:bottom, left:right] = True
    return found


def unsensed(seen: View, rng: np.random.Generator) -> ndarray:
    """Where the depth sensor finds nothing [H, W]: on what shines, beside the edges of near things, in specks."""
    inverse = 1 / seen.depth
    hidden = np.zeros(seen.depth.shape, bool)
    for step in range(1, max(1, seen.depth.shape[1] // 100) + 1):
        # a pattern projected from the right leaves a shadow at the left of near things
        hidden[:, :-step] |= inverse[:, step:] > inverse[:, :-step] * (1 + 0.08 * step)
    shiny = np.isin(seen.labels, SHINY) & (rng.uniform(size=hidden.shape) < 0.8)
    return hidden | shiny | (rng.uniform(size=hidden.shape) < 0.01)


def raw_depth(seen: View, rng: np.random.Generator) -> ndarray:
    """Metres [H, W] float32 as the sensor projects them, 0 where it has none and outside the valid area."""
    return np.where(unsensed(seen, rng) | ~valid_region(*seen.depth.shape), np.float32(0), seen.depth)


def archived(normals: ndarray, valid: ndarray) -> tuple[ndarray, ndarray]:
    """Of normals [3, H, W] the colours [H, W, 3] uint8 of Eigen & Fergus' archive, 127 where there are none, and their
    mask [H, W] uint8."""
    vectors = np.einsum("ca,chw->hwa", np.array(AXES["eigen"], np.float32), normals)  # the transpose: camera to file
    colours = np.clip(np.rint(vectors * 127.5 + 127.5), 0, 255).astype(np.uint8)
    colours[~valid] = 127
    return colours, np.where(valid, 255, 0).astype(np.uint8)


def names_of_labels() -> list[str]:
    """894 names."""
    names = [f"class {k}" for k in range(1, LABELS + 1)]
    for name, labels, _ in CLASSES:
        if len(numbers(labels)) == 1:
            names[numbers(labels)[0] - 1] = name
    for thing in Thing:
        names[thing - 1] = str(thing)
    return names


def write_labeled(path: Path, parts: Path, source: NYUv2) -> None:
    """The HDF5 file, of a .npz file for each image."""
    import h5py

    number, height, width = source.train + source.test, source.height, source.width
    kinds = [room(source.seed, "nyuv2", index).kind for (index,) in source.items()]
    scenes = [f"{kind}_{index // 2:04d}" for index, kind in enumerate(kinds)]
    times = [f"1294886{index:03d}.208451-2996770{index:03d}" for index in range(number)]
    maps = {"images": "u1", "labels": "u2", "instances": "u1", "depths": "f4", "rawDepths": "f4"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, dtype in maps.items():
            shape = (3, width, height) if name == "images" else (width, height)
            made = file.create_dataset(
                name, (number, *shape), dtype, chunks=(1, *shape), compression="gzip", compression_opts=3
            )
            made.attrs["MATLAB_class"] = np.bytes_({"u1": "uint8", "u2": "uint16", "f4": "single"}[dtype])
        for index in range(number):
            with np.load(parts / f"{index:04d}.npz") as arrays:
                for name in maps:
                    file[name][index] = arrays[name].T
        file["accelData"] = np.zeros((4, number), np.float32)
        file["accelData"].attrs["MATLAB_class"] = np.bytes_("single")
        # a map object: of no use without MATLAB, but there
        file["namesToIds"] = np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32)
        file["namesToIds"].attrs["MATLAB_class"] = np.bytes_("containers.Map")
        strings = {
            "names": names_of_labels(),
            "scenes": scenes,
            "sceneTypes": kinds,
            "rawRgbFilenames": [f"{scene}/r-{time}.ppm" for scene, time in zip(scenes, times, strict=True)],
            "rawDepthFilenames": [f"{scene}/d-{time}.pgm" for scene, time in zip(scenes, times, strict=True)],
        }
        for name, values in strings.items():
            _write_strings(file, name, values)
    with path.open("r+b") as file:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, synthetic HDF5 schema 1.00 ."
        file.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")


def _write_strings(file: Any, name: str, values: Sequence[str]) -> None:
    """A cell of strings: (1, n) references to uint16 character codes, one a row."""
    import h5py

    made = file.create_dataset(name, (1, len(values)), h5py.ref_dtype)
    made.attrs["MATLAB_class"] = np.bytes_("cell")
    for index, value in enumerate(values):
        codes = np.frombuffer(value.encode("utf-16-le"), np.uint16).reshape(-1, 1)
        string = file.create_dataset(f"#refs#/{name}_{index}", data=codes)
        string.attrs["MATLAB_class"] = np.bytes_("char")
        string.attrs["MATLAB_int_decode"] = np.int32(2)
        made[0, index] = string.ref


def cell(values: Sequence[str]) -> ndarray:
    """A MATLAB cell of strings [1, n]."""
    found = np.empty((1, len(values)), object)
    found[0] = values
    return found


def write_mat(path: Path, variables: dict[str, Any]) -> None:
    """A MATLAB 5 file, without the date that its head would have."""
    from scipy.io import savemat

    savemat(path, variables)
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, synthetic".ljust(116))
