"""Taskonomy's domains of a rendered view, each by its definition, in the encoding and bit depth of the files.

How the real ones were made is public for edges and keypoints (Omnidata's annotator): Sobel filters of the smoothed grey
image and of the square root of depth, the determinant of the Hessian, NARF. For the last the corners of the surface are
a stand-in: where its normals turn in two directions.
"""

import numpy as np
from numpy import ndarray

from mtlbench.synthetic.furniture import Thing
from mtlbench.synthetic.taskonomy_scene import OPENINGS, OUTSIDE, VASE, View

MISSING = 65535
"""A depth without a surface."""

FARTHEST = MISSING / 512
"""Metres that can be stored."""

CLASSES = {
    Thing.BOTTLE: 2,
    Thing.CHAIR: 3,
    Thing.SOFA: 4,
    Thing.BED: 6,
    Thing.TABLE: 7,
    Thing.TOILET: 8,
    Thing.TELEVISION: 9,
    Thing.SINK: 13,
    Thing.REFRIDGERATOR: 14,
    Thing.BOOKS: 15,
    VASE: 17,
}
"""{label of a scene: number in segment_semantic}; all else is 1, background, and 0 uncertain."""

PLACES = {"bedroom": 52, "kitchen": 203, "bathroom": 45, "living_room": 215, "office": 244, "dining_room": 121}
"""{kind of room: its number among the 365 of Places}"""

ELSEWHERE = 20
"""A number of Places that is none of the 63 that the authors keep."""


def maps(seen: View, rng: np.random.Generator, number: int) -> dict[str, ndarray]:
    """{domain: array of the file}. number: of the image; grey without a surface is 127 or 128 by turns, and every
    fifth has the scene's most probable class outside of those that are kept."""
    surface = np.isfinite(seen.depth) & ~seen.hole
    size = surface.shape[0]
    ray = seen.camera.rays(size, size)
    ray = np.einsum("ji,jhw->ihw", seen.camera.rotation(), ray)  # in the camera's axes: (x, y, 1)
    length = np.sqrt((ray**2).sum(0))
    grey = seen.image.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    scale = size / 512  # widths of filters are those of 512 x 512 images
    return {
        "rgb": seen.image,
        "depth_zbuffer": depth(seen.depth, surface),
        "depth_euclidean": depth(seen.depth * length, surface),
        "normal": normal(seen.normals, surface, 128 - number % 2),
        "principal_curvature": curvature(seen.curvature, surface),
        "reshading": reshading(seen.normals, ray / length, surface),
        "edge_texture": sixteen(scale * sobel(blur(grey, 3 * scale))),
        "edge_occlusion": sixteen(scale * sobel(np.sqrt(np.minimum(seen.depth, FARTHEST) / FARTHEST))),
        "keypoints2d": sixteen(400 * scale**4 * hessian(blur(grey, 2.5 * scale))),
        "keypoints3d": sixteen(20 * scale**2 * corners(seen.normals, 6 * scale)),
        "segment_semantic": semantic(seen.labels, surface, rng),
        "class_scene": scene(seen.kind, rng, elsewhere=number % 5 == 4),
        "mask_valid": (255 * surface).astype(np.uint8),
    }


def sixteen(share: ndarray) -> ndarray:
    """0 to 1 as uint16."""
    return np.rint(np.clip(share, 0, 1) * 65535).astype(np.uint16)


def depth(metres: ndarray, surface: ndarray) -> ndarray:
    """p = 512 m, MISSING where there is no surface."""
    p = np.rint(512 * np.where(surface, metres, 0.0))
    return np.where(surface, np.minimum(p, MISSING - 1), MISSING).astype(np.uint16)


def normal(normals: ndarray, surface: ndarray, grey: int) -> ndarray:
    """p = 127.5 (n + 1) of x right, y down, z along the optical axis: what faces the viewer has little blue."""
    p = np.rint(127.5 * (normals + 1)).transpose(1, 2, 0)
    return np.where(surface[..., None], p, grey).astype(np.uint8)


def curvature(k: ndarray, surface: ndarray) -> ndarray:
    """Red and green: p = 127 (1 + 0.03 k), k at most 33.3 in size; blue 0."""
    p = np.rint(127 * (1 + np.clip(0.03 * k, -1, 1)))
    red, green = np.where(surface, p, 127)
    return np.stack([red, green, np.zeros_like(red)], -1).astype(np.uint8)


def reshading(normals: ndarray, to_surface: ndarray, surface: ndarray) -> ndarray:
    """p = 255 cos of the angle between the normal and the ray to the camera, where the one lamp is; grey as RGB."""
    p = np.rint(255 * np.clip(-(normals * to_surface).sum(0), 0, 1))
    return np.repeat(np.where(surface, p, 0)[..., None], 3, 2).astype(np.uint8)


def semantic(labels: ndarray, surface: ndarray, rng: np.random.Generator) -> ndarray:
    """Classes; uncertain at the borders of objects, where there is no surface, and in one object of ten."""
    found = np.ones(labels.shape, np.uint8)
    for label, number in CLASSES.items():
        found[labels == label] = 0 if rng.uniform() < 0.1 else number
    padded = np.pad(found, 1, mode="edge")
    around = np.stack([padded[1 + dy :, 1 + dx :][: found.shape[0], : found.shape[1]] for dy, dx in _BESIDE])
    found[(around != found).any(0)] = 0
    found[~surface | np.isin(labels, (OUTSIDE, *OPENINGS))] = 0
    return found


_BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))


def scene(kind: str, rng: np.random.Generator, elsewhere: bool) -> ndarray:
    """365 probabilities that sum to 1, float32."""
    logits = rng.normal(0, 1.5, 365)
    logits[PLACES[kind]] = logits.max() + rng.uniform(0.5, 4)
    if elsewhere:
        logits[ELSEWHERE] = logits.max() + 1
    exponential = np.exp(logits - logits.max())
    return (exponential / exponential.sum()).astype(np.float32)


def blur(values: ndarray, sigma: float) -> ndarray:
    """A Gaussian blur of [H, W], cut off at 3 standard deviations."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if k == axis else (0, 0) for k in (0, 1)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis)
        values = windows @ kernel
    return values


def gradient(values: ndarray) -> tuple[ndarray, ndarray]:
    """Sobel's two derivatives per pixel (along x, along y) of [H, W], the borders repeated."""
    p = np.pad(values, 1, mode="edge")
    across = p[:-2] + 2 * p[1:-1] + p[2:]
    down = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    return (across[:, 2:] - across[:, :-2]) / 8, (down[2:] - down[:-2]) / 8


def sobel(values: ndarray) -> ndarray:
    """Sobel's magnitude as scikit-image has it: the square root of 2 times the length of the gradient per pixel."""
    return np.sqrt(2) * np.hypot(*gradient(values))


def hessian(values: ndarray) -> ndarray:
    """The determinant of the second derivatives, where it is positive: blobs and corners."""
    x, y = gradient(values)
    (xx, xy), (_, yy) = gradient(x), gradient(y)
    return np.maximum(xx * yy - xy**2, 0)


def corners(vectors: ndarray, sigma: float) -> ndarray:
    """The smaller eigenvalue of the structure tensor of vectors [3, H, W], as in Harris' corners."""
    pairs = [gradient(component) for component in vectors.astype(np.float64)]
    xx, xy, yy = (blur(sum(a[i] * a[j] for a in pairs), sigma) for i, j in ((0, 0), (0, 1), (1, 1)))
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
