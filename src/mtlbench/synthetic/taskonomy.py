"""Synthetic rooms in Taskonomy's format on disk.

Two buildings of the tiny split train, one validates, one tests; a point of a building is a room, seen from two views:
point_<p>_view_<v>_domain_<suffix>.png in one of three layouts, PNGs of 8 and 16 bits, scenes as .npy, one .json of the
camera for each image, and train_val_test_tiny.csv with lines that end in CR alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mtlbench.seeds import seed_of
from mtlbench.synthetic.taskonomy_maps import maps
from mtlbench.synthetic.taskonomy_scene import View, render

BUILDINGS = {"train": ("hanson", "merom"), "val": ("wiconisco",), "test": ("ihlen",)}
ABSENT = "woodbine"
"""In the split and without files where `broken`, as in the starter download of the real data."""

SUFFIXES = {"segment_semantic": "segmentsemantic", "class_scene": "class_places"}
"""{domain: its suffix}, where that is not the domain's name."""

LAYOUTS = {
    "omnidata": "{domain}/taskonomy/{building}/{name}_domain_{suffix}.{end}",
    "original": "{building}/{domain}/{name}_domain_{suffix}.{end}",
    "standley": "{domain}/{building}/{name}.{end}",
}


@dataclass(frozen=True)
class Taskonomy:
    """The files of `train` + `val` + `test` images of size x size pixels. An image is a function of (seed, split,
    index, size): the counts change no image and no name.

    layout: omnidata (with the domain mask_valid), original or standley.
    broken: a building of the split is not there, the reshading of the second training image is missing, and the
        edge_texture of the first validation image is cut off.
    Raises ValueError for sizes or counts that cannot be written.
    """

    size: int
    train: int
    val: int
    test: int
    layout: str
    broken: bool
    seed: int

    name = "taskonomy"
    version = 1

    def __post_init__(self) -> None:
        for key, least in (("size", 32), ("train", 1), ("val", 0), ("test", 0)):
            found = getattr(self, key)
            if not isinstance(found, int) or isinstance(found, bool) or found < least:
                raise ValueError(
                    f"dataset.{key}: expected a whole number of at least {least}, found {found}. "
                    f"Type for example dataset.{key}={max(least, 4)}."
                )
        if self.layout not in LAYOUTS:
            raise ValueError(f"dataset.layout={self.layout}: {', '.join(LAYOUTS)} is expected.")

    def items(self) -> list[tuple[str, int]]:
        """(split, index) of every image."""
        return [(split, index) for split in BUILDINGS for index in range(getattr(self, split))]

    def images(self, folder: Path) -> list[Path]:
        """The image files that a complete folder holds."""
        return [self.path(folder, *item, "rgb") for item in self.items()]

    def path(self, folder: Path, split: str, index: int, domain: str, end: str = "png") -> Path:
        """Where one file of an image is: buildings take turns, then views, then points."""
        buildings = BUILDINGS[split]
        place, view = index // len(buildings) // 2, index // len(buildings) % 2
        return folder / LAYOUTS[self.layout].format(
            domain=domain,
            building=buildings[index % len(buildings)],
            name=f"point_{point_number(place)}_view_{view}",
            suffix=SUFFIXES.get(domain, domain),
            end=end,
        )

    def write(self, folder: Path, split: str, index: int) -> None:
        """All files of one image; the first one of all writes the split as well."""
        count = len(BUILDINGS[split])
        room, view = index // count // 2 * count + index % count, index // count % 2
        seen = render(self.seed, split, room, view, self.size)
        rng = np.random.default_rng(seed_of(self.seed, "taskonomy maps", split, index))
        for domain, values in maps(seen, rng, index).items():
            if domain == "mask_valid" and self.layout != "omnidata":
                continue
            path = self.path(folder, split, index, domain, "npy" if domain == "class_scene" else "png")
            path.parent.mkdir(parents=True, exist_ok=True)
            if domain == "class_scene":
                np.save(path, values)
            else:
                Image.fromarray(values).save(path)
        path = self.path(folder, split, index, "point_info", "json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(camera_file(seen, self.size), indent=1))
        if self.broken and (split, index) == ("train", 1):
            self.path(folder, split, index, "reshading").unlink()
        if self.broken and (split, index) == ("val", 0):
            path = self.path(folder, split, index, "edge_texture")
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if (split, index) == ("train", 0):
            (folder / "train_val_test_tiny.csv").write_bytes(self.split_file())

    def split_file(self) -> bytes:
        """The CSV: one 1 in each row, lines that end in CR alone."""
        rows = ["id,train,val,test"]
        for i, (split, buildings) in enumerate(BUILDINGS.items()):
            used = buildings[: getattr(self, split)] + ((ABSENT,) if self.broken and split == "train" else ())
            rows += [f"{name},{','.join('1' if k == i else '0' for k in range(3))}" for name in used]
        return "".join(f"{row}\r" for row in rows).encode()


def point_number(place: int) -> int:
    """Points have gaps and are in no order."""
    return (7 + 389 * place) % 9973  # a prime: no point comes twice


def camera_file(seen: View, size: int) -> dict:
    """Of point_info, what the domains can be checked by: radians, metres, the size in pixels."""
    camera = seen.camera
    return {
        "field_of_view_rads": 2 * float(np.arctan(size / 2 / camera.fx)),
        "resolution": size,
        "camera_location": [camera.x, camera.z, camera.y],
        "camera_pitch": camera.pitch,
        "camera_roll": camera.roll,
        "camera_yaw": camera.yaw,
    }
