"""Surface normals: the axes that files have them in, and planes fitted to a depth map.

Normals here are in the camera's axes: x right, y down, z along the optical axis, so that z < 0 on all that is seen.
"""

from pathlib import Path

import numpy as np
from numpy import ndarray

AXES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "eigen": ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
    "omnidata": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "camera": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
"""{how a file has them: matrix from its channels to (x, y, z)}. eigen: right, towards the viewer, up (Eigen & Fergus'
archive; omnidata's code swaps channels 1 and 2 and negates one); omnidata: right, down, towards the viewer."""

FX, FY, U0, V0 = 518.857901, 519.469611, 325.582449, 253.736166
"""The colour camera of the toolbox, in pixels of an image of 480 x 640."""


def to_camera(vectors: ndarray, axes: str) -> ndarray:
    """Stored vectors [..., 3] as (x, y, z) [3, ...] float32, NaN where no component is above 0 in size."""
    matrix = np.array(AXES[axes], np.float32)
    vectors = np.moveaxis(np.asarray(vectors, np.float32), -1, 0)
    turned = np.tensordot(matrix, vectors, 1)
    turned[:, ~(vectors != 0).any(0) | ~np.isfinite(vectors).all(0)] = np.nan
    return turned


def from_png(pixels: ndarray, valid: ndarray) -> ndarray:
    """Unit vectors [H, W, 3] float32 of 8-bit colours [H, W, 3]: n = p / 127.5 - 1, made one long; 0 where `valid`
    [H, W] is 0 or all three are the grey 127, which stands for no vector."""
    vectors = pixels.astype(np.float32) / 127.5 - 1
    length = np.sqrt((vectors**2).sum(-1, keepdims=True))
    nothing = (valid == 0) | (pixels == 127).all(-1)
    return np.where(nothing[..., None], np.float32(0), vectors / np.maximum(length, 1e-6))


def check_axes(vectors: ndarray, axes: str, path: Path) -> None:
    """Raises ValueError, naming `path`, where stored vectors [..., 3] face the viewer more in other axes than in these.

    What is seen faces the viewer, so that -z is on average largest in the right axes (about 0.5 indoors).
    """
    vectors = vectors[(vectors != 0).any(-1) & np.isfinite(vectors).all(-1)]
    if not len(vectors):
        return
    found = {name: -float(to_camera(vectors, name)[2].mean()) for name in AXES}
    likely = max(found, key=lambda name: found[name])
    if found[likely] > found[axes] + 0.05:
        raise ValueError(
            f"dataset.normals_axes={axes}: in {path} and others the component towards the viewer is {found[axes]:.2f} "
            f"on average, in the axes {likely} {found[likely]:.2f}. Use dataset.normals_axes={likely}."
        )


def upward_share(normals: ndarray, floor: ndarray) -> float:
    """Of floor pixels ([...] bool) the share whose normal points up (y < -0.5): nearly 1 where the axes are right."""
    y = normals[1][floor & np.isfinite(normals[1])]
    return float((y < -0.5).mean()) if y.size else 1.0


def from_depth(depth: ndarray, window: int = 7, tolerance: float = 0.05) -> ndarray:
    """Unit normals [3, H, W] float32 of a depth map [H, W] in metres (0 or NaN: missing), NaN where there is none.

    Of a plane n X = 1 the inverse depth is linear in the pixel: with X = Z ((u - u0) / fx, (v - v0) / fy, 1),
    1 / Z = n_x (u - u0) / fx + n_y (v - v0) / fy + n_z. In the window around each pixel this is fitted by least
    squares, over pixels whose depth is within `tolerance` (relative) of the middle one's, so that the other side of
    an edge has no part in it; n is what has been fitted, made one long and turned towards the viewer. A pixel
    without depth, or with fewer than a third of the window's pixels, has no normal. The camera is the toolbox's,
    scaled to the map's size.
    """
    height, width = depth.shape
    known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(known, 1 / np.where(known, depth, 1), np.nan).astype(np.float32)
    radius = window // 2
    padded = np.pad(inverse, radius, constant_values=np.nan)
    n, su, sv, suu, suv, svv, sq, suq, svq = np.zeros((9, height, width), np.float32)
    with np.errstate(invalid="ignore"):
        for dv in range(-radius, radius + 1):
            for du in range(-radius, radius + 1):
                there = padded[radius + dv : radius + dv + height, radius + du : radius + du + width]
                q = there - inverse
                near = np.abs(q) <= tolerance * there  # |Z - Z0| <= tolerance Z0
                q = np.where(near, q, np.float32(0))
                for total, factor in ((n, 1), (su, du), (sv, dv), (suu, du * du), (suv, du * dv), (svv, dv * dv)):
                    if factor:
                        total += factor * near
                for total, factor in ((sq, 1), (suq, du), (svq, dv)):
                    if factor:
                        total += factor * q
    # the normal equations of q = a du + b dv + c, in float64: Cramer's rule
    m = np.array([[suu, suv, su], [suv, svv, sv], [su, sv, n]], np.float64).transpose(2, 3, 0, 1)
    right = np.stack([suq, svq, sq], -1).astype(np.float64)
    fitted = known & (3 * n >= window * window) & (np.linalg.det(m) > 1e-3)
    m[~fitted] = np.eye(3)
    a, b, c = np.moveaxis(np.linalg.solve(m, right[..., None])[..., 0], -1, 0)
    fx, fy, u0, v0 = scaled_intrinsics(height, width)
    v, u = np.mgrid[0:height, 0:width]
    at_principal = inverse + c + a * (u0 - u) + b * (v0 - v)
    normal = -np.stack([a * fx, b * fy, at_principal])  # n X = 1 > 0 points away
    normal /= np.maximum(np.sqrt((normal**2).sum(0)), 1e-12)
    normal[:, ~fitted] = np.nan
    return normal.astype(np.float32)


def scaled_intrinsics(height: int, width: int) -> tuple[float, float, float, float]:
    """fx, fy, u0, v0 of a whole image resized to that size, pixel centres at integers."""
    x, y = width / 640, height / 480
    return FX * x, FY * y, (U0 + 0.5) * x - 0.5, (V0 + 0.5) * y - 0.5
