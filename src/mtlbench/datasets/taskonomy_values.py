"""What Taskonomy's numbers mean: encodings, the published normalisations and validity masks, by name.

p is the stored integer. A label is decoded with the meaning that a change of the image needs (metres, unit vectors),
NaN where it is not valid; `normalised` makes the target of it afterwards. Three public codes read the same files:

taskonomy   the authors' (Zamir et al. 2018; StanfordVL/taskonomy, for 256 x 256)
standley    Standley et al. 2020 (tstandley/taskgrouping)
omnidata    EPFL-VILAB/omnidata, omnidata_tools/torch/data; omnidata_metres: its newer copy, with depths in metres
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.labels import (
    ClassMap,
    Curvature,
    Edges,
    EuclideanDepth,
    KeypointMap,
    Label,
    MetricDepth,
    Normals,
    Reshading,
    WholeImage,
)
from mtlbench.task import IGNORE


class Domain(NamedTuple):
    """name: the folder's. bits, channels: of the PNG. masked: invalid where the mesh has no surface."""

    name: str
    bits: int
    channels: int
    masked: bool = True


DOMAINS = {
    "depth": Domain("depth_zbuffer", 16, 1),
    "euclidean": Domain("depth_euclidean", 16, 1),
    "normals": Domain("normal", 8, 3),
    "curvature": Domain("principal_curvature", 8, 3),
    "reshading": Domain("reshading", 8, 3),
    "edge_2d": Domain("edge_texture", 16, 1, masked=False),
    "edge_3d": Domain("edge_occlusion", 16, 1),
    "keypoint_2d": Domain("keypoints2d", 16, 1, masked=False),
    "keypoint_3d": Domain("keypoints3d", 16, 1),
    "semantic": Domain("segment_semantic", 8, 1, masked=False),
    "scene": Domain("class_scene", 0, 0, masked=False),
}
"""{task: its domain}"""

RGB = Domain("rgb", 8, 3)
ZBUFFER = DOMAINS["depth"]
MASK = Domain("mask_valid", 8, 1)

METRE = 512
"""Depth is stored in 1/512 m; 65535 is no surface."""

PLACES = 365
HOME = (
    3, 23, 25, 26, 28, 37, 43, 45, 51, 52, 56, 61, 63, 88, 89, 93, 95, 100, 102, 106, 121, 124, 126, 129, 131, 133, 135,
    156, 165, 176, 177, 179, 182, 203, 208, 215, 217, 228, 240, 241, 244, 246, 248, 253, 255, 264, 269, 280, 281, 282,
    285, 298, 303, 311, 317, 318, 328, 332, 343, 346, 352, 358, 363,
)  # fmt: skip
"""Of the 365 classes of Places those of homes and workplaces that the authors keep."""

SEMANTIC = (
    "background", "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
)  # fmt: skip
"""What 1 to 17 are in segment_semantic; 0 is uncertain."""

Normalisation = Mapping[str, Callable[[Tensor], Tensor]]


def _between(low: float, high: float, of: float = 1.0, clip: bool = False) -> Callable[[Tensor], Tensor]:
    """p / of from [low, high] to [-1, 1]."""

    def scaled(p: Tensor) -> Tensor:
        x = p / of
        x = x.clamp(low, high) if clip else x
        return (x - low) / (high - low) * 2 - 1

    return scaled


def _standard(mean: float | tuple[float, ...], deviation: float | tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    def scaled(p: Tensor) -> Tensor:
        centre, width = (torch.tensor(x, dtype=p.dtype).reshape(-1, 1, 1) for x in (mean, deviation))
        return (p - centre) / width

    return scaled


def _divided(by: float) -> Callable[[Tensor], Tensor]:
    return lambda p: p / by


def _logarithm(p: Tensor) -> Tensor:
    return (1 + p).log() / math.log(2**16)


_TASKONOMY: Normalisation = {
    "depth": _logarithm,
    "euclidean": _logarithm,
    "normals": _between(0, 1, 255),
    "curvature": _standard((123.572, 120.1), (31.922, 21.658)),
    "reshading": _between(0, 1, 255),
    "edge_2d": _between(0, 0.08, 65535, clip=True),
    "edge_3d": _between(0, 0.00625, 65535),  # and blurred, see BLUR
    "keypoint_2d": _between(0, 0.005, 65535, clip=True),
    "keypoint_3d": _between(0, 1, 65535),
}
_STANDLEY: Normalisation = {
    "depth": _standard(1500, 1000),
    "euclidean": _standard(1500, 1000),
    "normals": _between(0, 1, 255),
    "curvature": _standard((255 * 0.5175, 255 * 0.4987), (255 * 0.1373, 255 * 0.0359)),
    "reshading": _standard(255 * 0.4962, 255 * 0.2846),
    "edge_2d": _standard(718, 1070),
    "edge_3d": _standard(56.0248, 239.1265),
    "keypoint_2d": _standard(50, 100),
}
_OMNIDATA: Normalisation = {
    "depth": _divided(8000),
    "euclidean": _divided(8000),
    "normals": _divided(255),
    "curvature": _divided(255),
    "reshading": _divided(255),
    "edge_2d": _divided(65535 * 0.25),
    "edge_3d": _divided(65535),
    "keypoint_2d": _divided(65535),
    "keypoint_3d": _divided(65535),
}
NORMALISATIONS: dict[str, Normalisation] = {
    "taskonomy": _TASKONOMY,
    "standley": _STANDLEY,
    "omnidata": _OMNIDATA,
    "omnidata_metres": {**_OMNIDATA, "depth": _divided(METRE), "euclidean": _divided(METRE)},
}
"""{name: {task: target of p}}; Standley et al. have no keypoints3d. Classes and probabilities are none of these."""

BLUR = {"taskonomy": {"edge_3d": 4.0}}
"""{name: {task: standard deviation, in pixels of an image 256 high}}: a Gaussian blur, before what is invalid is."""

VALIDITIES = {"taskonomy": 64500, "standley": 8192, "omnidata": None}
"""{name: p of depth_zbuffer from which on there is no label}; omnidata has masks of its own."""

_OMNIDATA_INVALID = {"depth": (8000 - 8, 8000 + 8), "normals": (128, 128), "curvature": (0, 0)}
"""{task: least and largest p, in all channels, that its code takes for no label}: its mask values 1.0, 0.502 and 0 to
within 0.001. Depth is divided by 8000 there and not cut off, so that 1.0 is a depth of 15.6 m, not a missing one."""


def valid(task: str, name: str, stored: np.ndarray, zbuffer: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
    """Where [H, W] a masked task has a label, by the mask of that name, of its own p and those of depth_zbuffer and
    mask_valid, at full size: interpolated values of 65535 and their neighbours pass for depths."""
    bound = VALIDITIES[name]
    if bound is not None:
        assert zbuffer is not None, task
        return zbuffer < bound
    if mask is not None:
        invalid = mask == 0
    elif task in _OMNIDATA_INVALID:
        low, high = _OMNIDATA_INVALID[task]
        p = stored.reshape(*stored.shape[:2], -1)
        invalid = ((p >= low) & (p <= high)).all(-1)
    else:
        return np.ones(stored.shape[:2], bool)
    grown = F.max_pool2d(torch.from_numpy(invalid[None].astype(np.float32)), 5, stride=1, padding=2)
    return ~grown[0].bool().numpy()


def decoded(task: str, stored: np.ndarray, valid: np.ndarray | None, blur: float | None, turned: bool) -> Label:
    """The label of p [H, W] or [H, W, 3]. turned: the sign of the normals' z is changed."""
    p = torch.from_numpy(stored.astype(np.float32))
    p = p[None] if p.ndim == 2 else p.permute(2, 0, 1).contiguous()
    if blur is not None:
        p = blurred(p, blur * p.shape[-2] / 256)
    if task in ("depth", "euclidean"):
        p = p / METRE
    elif task == "normals":
        grey = ((p - 127.5).abs() < 1).all(0)  # no surface, whatever the mask says: made a unit vector it would be one
        p = (p / 127.5 - 1).masked_fill(grey, math.nan)
        if turned:
            p[2].neg_()
    elif task == "curvature":
        p = p[:2]
    elif task == "reshading":
        p = p.mean(0, keepdim=True)
    if valid is not None:
        p = p.masked_fill(~torch.from_numpy(valid), math.nan)
    return LABELS[task](p)


LABELS: dict[str, type[Label]] = {
    "depth": MetricDepth,
    "euclidean": EuclideanDepth,
    "normals": Normals,
    "curvature": Curvature,
    "reshading": Reshading,
    "edge_2d": Edges,
    "edge_3d": Edges,
    "keypoint_2d": KeypointMap,
    "keypoint_3d": KeypointMap,
    "semantic": ClassMap,
    "scene": WholeImage,
}


def normalised(task: str, name: str, label: Tensor) -> Tensor:
    """The target of a decoded label, by the normalisation of that name."""
    p = label * METRE if task in ("depth", "euclidean") else (label + 1) * 127.5 if task == "normals" else label
    return NORMALISATIONS[name][task](p)


def classes(stored: np.ndarray, count: int) -> ClassMap:
    """0 uncertain: no label; 1 background to 17 vase: classes 0 to 16 (count 17, the authors) or 1 to 17 (count 18,
    Standley et al., where class 0 is never a label)."""
    shift = 1 if count == 17 else 0
    labels = np.where(stored == 0, IGNORE, stored.astype(np.int16) - shift).astype(np.uint8)
    return ClassMap(torch.from_numpy(labels))


def scene(probabilities: np.ndarray, count: int) -> WholeImage:
    """365 probabilities, or the 63 of HOME divided by their sum."""
    kept = probabilities.astype(np.float32)
    if count == len(HOME):
        kept = kept[list(HOME)]
        kept = kept / max(kept.sum(), np.finfo(np.float32).tiny)
    return WholeImage(torch.from_numpy(kept))


def empty(task: str, size: tuple[int, int], scene_classes: int) -> Label:
    """A label that says nothing, of an image of `size` (height, width)."""
    if task == "semantic":
        return ClassMap(torch.full(size, IGNORE, dtype=torch.uint8))
    if task == "scene":
        return WholeImage(torch.full((scene_classes,), math.nan))
    return LABELS[task](torch.full((CHANNELS[task], *size), math.nan))


CHANNELS = {task: {"normals": 3, "curvature": 2}.get(task, 1) for task in DOMAINS if task not in ("semantic", "scene")}
"""{task: how many numbers a pixel has}"""


def blurred(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of maps [C, H, W], cut off at 4 standard deviations, mirrored at the borders."""
    reach = min(math.ceil(4 * sigma), min(maps.shape[-2:]) - 1)
    x = torch.arange(-reach, reach + 1, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    padded = F.pad(maps[:, None], [reach] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]
