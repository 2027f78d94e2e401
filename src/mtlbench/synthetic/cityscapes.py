"""Synthetic street scenes in Cityscapes' format on disk.

`{type}/{split}/{city}/{city}_{sequence:06d}_{frame:06d}_{suffix}`: leftImg8bit, gtFine (labelIds,
instanceIds, color, polygons), disparity and camera. Where an image is not 2048 wide, the camera file's
intrinsics are those of the written image, and so are disparities: p = 256 d + 1 with d in pixels of the
written image, p = 0 invalid, and depth = baseline fx / d with the file's own numbers.

Polygons are bounding rectangles only; labelIds and instanceIds hold the true outlines.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from mtlbench.seeds import seed_of
from mtlbench.synthetic.ids import COLOURS, Id
from mtlbench.synthetic.paint import noise
from mtlbench.synthetic.raycast import Camera
from mtlbench.synthetic.street import View, number_instances, render

CITIES = {"train": ("aachen", "bremen", "ulm"), "val": ("frankfurt",)}
BASELINE = 0.209313
LARGEST = 126 * 256 + 1
"""The largest stored disparity: 126 pixels."""

PALETTE = np.array([(*colour, 255) for colour in COLOURS], np.uint8)


@dataclass(frozen=True)
class Cityscapes:
    """The files of `train` + `val` street scenes of height x width pixels. An image is a function of
    (seed, split, index, height, width): the counts change no image and no name.

    Raises ValueError for sizes or counts that cannot be written.
    """

    height: int
    width: int
    train: int
    val: int
    seed: int

    name = "cityscapes"
    version = 1

    def __post_init__(self) -> None:
        for key, least in (("height", 32), ("width", 64), ("train", 1), ("val", 0)):
            found = getattr(self, key)
            if not isinstance(found, int) or isinstance(found, bool) or found < least:
                raise ValueError(
                    f"dataset.{key}: expected a whole number of at least {least}, found {found}. "
                    f"Type for example dataset.{key}={max(least, 64)}."
                )

    def items(self) -> list[tuple[str, int]]:
        """(split, index) of every image."""
        return [(split, index) for split in CITIES for index in range(getattr(self, split))]

    def images(self, folder: Path) -> list[Path]:
        """The image files that a complete folder holds."""
        return [path_of(folder, *item, "leftImg8bit", "leftImg8bit.png") for item in self.items()]

    def write(self, folder: Path, split: str, index: int) -> None:
        """All files of one image."""
        rng = np.random.default_rng(seed_of(self.seed, "cityscapes", split, index))
        seen = cover(render(self.seed, index, self.height, self.width, split=split), index, rng)
        disparity = stored_disparity(seen, rng)

        def path(kind: str, suffix: str) -> Path:
            found = path_of(folder, split, index, kind, suffix)
            found.parent.mkdir(parents=True, exist_ok=True)
            return found

        Image.fromarray(seen.image).save(path("leftImg8bit", "leftImg8bit.png"))
        Image.fromarray(seen.labels).save(path("gtFine", "gtFine_labelIds.png"))
        Image.fromarray(seen.instances.astype(np.uint16)).save(path("gtFine", "gtFine_instanceIds.png"))
        Image.fromarray(PALETTE[seen.labels]).save(path("gtFine", "gtFine_color.png"))
        path("gtFine", "gtFine_polygons.json").write_text(json.dumps(polygons(seen.instances), indent=1))
        Image.fromarray(disparity).save(path("disparity", "disparity.png"))
        path("camera", "camera.json").write_text(json.dumps(camera_file(seen.camera), indent=1))


def path_of(folder: Path, split: str, index: int, kind: str, suffix: str) -> Path:
    """Where one file of an image is: cities take turns, frame numbers have gaps and are in no order."""
    cities = CITIES[split]
    city, place = cities[index % len(cities)], index // len(cities)
    frame = (294 + 7919 * place) % 999_983  # a prime: no frame number comes twice
    return folder / kind / split / city / f"{city}_{place % 3:06d}_{frame:06d}_{suffix}"


def cover(seen: View, index: int, rng: np.random.Generator) -> View:
    """The view with what lies over a real one: the car's own bonnet, the rectification border, the edge that
    is out of the region of interest; in every fifth image also a person so far away as to fill one pixel."""
    image, labels, instances, depth = (x.copy() for x in (seen.image, seen.labels, seen.instances, seen.depth))
    height, width = labels.shape
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    crown = height * (1 - rng.uniform(0.07, 0.12) * (1 - ((u / width - rng.uniform(0.45, 0.55)) / 0.62) ** 2))
    ego = v > crown
    paint = rng.uniform(0.15, 0.6) * (0.7 + 0.6 * np.exp(-(((v - crown) / height * 60 - 1) ** 2)))
    dull = 255 * (paint[..., None] + rng.normal(0, 0.012, image.shape))
    image[ego] = np.clip(dull, 0, 255)[ego]
    labels[ego] = Id.EGO_VEHICLE
    thick = max(1, width // 512)
    margins = [int(m) * thick for m in rng.integers(0, 2, 4)]  # left, right, top, bottom
    border = (u < margins[0]) | (u >= width - margins[1]) | (v < margins[2]) | (v >= height - margins[3])
    labels[border] = Id.RECTIFICATION_BORDER
    image[border] //= 6
    outside = v >= height - thick
    labels[outside] = Id.OUT_OF_ROI
    image[outside] = 0
    covered = ego | border | outside
    instances[covered] = labels[covered]
    depth[covered] = np.nan
    owner = np.where(instances >= 1000, instances, -1)
    if index % 5 == 0 and (instances >= 1000).any():
        far = np.isin(labels, (Id.ROAD, Id.SIDEWALK)) & (depth > 12)
        if far.any():
            at = tuple(rng.choice(np.argwhere(far)))
            owner[at] = owner.max() + 1
            labels[at], depth[at], image[at] = Id.PERSON, depth[at] * 0.98, (140, 30, 40)
    instances = number_instances(labels, owner)  # what is covered in whole leaves no gap
    return View(image, labels, instances, depth, seen.normals, seen.camera)


def true_disparity(depth: ndarray, camera: Camera) -> ndarray:
    """d = baseline fx / depth in pixels of the image; 0 in the sky; not a number where depth is."""
    return np.float32(BASELINE * camera.fx) / depth


def occluded(disparity: ndarray) -> ndarray:
    """Which pixels the right camera does not see: pixel u is at u - d(u) there; it is hidden where a pixel
    further right in the row is at or left of that place, or out of the image where u - d(u) < 0."""
    place = np.arange(disparity.shape[1], dtype=np.float32) - np.nan_to_num(disparity)
    nearest = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(disparity.shape, bool)
    hidden[:, :-1] = nearest[:, 1:] <= place[:, :-1]
    return hidden | (place < 0)


def stored_disparity(seen: View, rng: np.random.Generator) -> ndarray:
    """uint16 [H, W]: p = 256 d + 1, at most LARGEST; 0 (at least a tenth of the image) where a stereo matcher
    finds nothing: behind the left edges of near things, in blobs, in nearly all of the sky, on the bonnet
    (but for three false matches at the largest disparity). The rest of the sky is a measured 0: p = 1."""
    height, width = seen.depth.shape
    disparity = true_disparity(seen.depth, seen.camera)
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    scale = np.float32(20 / width)
    salt = int(rng.integers(2**31))
    blobs = noise(u * scale, v * scale, salt) + 0.5 * noise(u * scale * 4, v * scale * 4, salt + 1)
    sky = np.isinf(seen.depth)
    invalid = occluded(disparity) | np.isnan(disparity) | (sky & (blobs < np.quantile(blobs, 0.96)))
    share = max(rng.uniform(0.11, 0.2), invalid.mean() + 0.02)
    more = (share - invalid.mean()) / (1 - invalid.mean())
    invalid |= blobs <= np.quantile(blobs[~invalid], np.clip(more, 0, 1))
    stored = np.minimum(np.rint(np.nan_to_num(disparity) * 256) + 1, LARGEST).astype(np.uint16)
    stored[invalid] = 0
    bonnet = np.argwhere(seen.labels == Id.EGO_VEHICLE)
    for at in rng.permutation(bonnet)[:3]:
        stored[tuple(at)] = LARGEST
    return stored


def polygons(instances: ndarray) -> dict:
    """The polygons file: of each label and instance its bounding rectangle; regions whose instances nobody
    could separate are named cargroup, persongroup ..."""
    objects = []
    for value in np.unique(instances):
        rows, columns = np.nonzero((instances == value).any(1))[0], np.nonzero((instances == value).any(0))[0]
        name = str(Id(int(value) // 1000 if value >= 1000 else int(value)))
        group = "group" if Id.PERSON <= value < 1000 else ""
        left, right, top, bottom = (int(x) for x in (columns[0], columns[-1], rows[0], rows[-1]))
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        objects.append({"label": name + group, "polygon": corners})
    return {"imgHeight": instances.shape[0], "imgWidth": instances.shape[1], "objects": objects}


def camera_file(camera: Camera) -> dict:
    """The camera file: metres, radians (yaw to the left, pitch down) and pixels of the written image."""
    return {
        "extrinsic": {
            "baseline": BASELINE,
            "pitch": camera.pitch,
            "roll": camera.roll,
            "x": 1.7,
            "y": 0.1,
            "yaw": -camera.yaw,
            "z": camera.y,
        },
        "intrinsic": {"fx": camera.fx, "fy": camera.fy, "u0": camera.u0, "v0": camera.v0},
    }
