"""Labels whose values stay what they are, and offsets to instance centres."""

import torch
from torch import Tensor

from mtlbench.labels.geometry import Label, Matrix, Sample
from mtlbench.task import IGNORE


class ClassMap(Label):
    """A class per pixel, [H, W] integers; IGNORE = no label. Its values never change.

    Semantic classes, parts, saliency and binary edges alike.
    """

    fill = IGNORE

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values)


class Scalars(Label):
    """Numbers per pixel that no change of the image alters, [C, H, W] float, NaN = no label."""

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values)


class Edges(Scalars):
    """Strength of edges [1, H, W], or 0 and 1 (Taskonomy's edge_texture and edge_occlusion, PASCAL's edges).

    No public code changes the values; how wide an edge is in pixels does change when it is scaled.
    """


class KeypointMap(Scalars):
    """A detector's response at each pixel [1, H, W] (Taskonomy's keypoints2d and keypoints3d). Values stay."""


class Reshading(Scalars):
    """The grey of a surface lit from the camera [C, H, W] (Taskonomy). Values are left alone.

    It is the cosine between the surface's normal and the ray to the camera: exact under flips, rotations and crops
    that keep the camera's centre. Scaling would change it a little, as it changes normals; no public code does that.
    """


class Curvature(Scalars):
    """The two principal curvatures [2, H, W] in 1/m or normalised (Taskonomy). Values are left alone.

    Curvature is the surface's own: a mirrored, turned or nearer surface has the same.
    """


class InstanceOffset(Label):
    """Centre of a pixel's instance minus the pixel, [2, H, W] (dx, dy) in pixels, NaN = no instance.

    The centre is what is sampled: it is one point for the whole instance, inside the image or not, so that
    sampling is exact, and the map of the plane takes it where it belongs. Only then is the pixel subtracted.
    (Enlarging by s multiplies offsets by s, a flip negates dx, a rotation turns them, a crop changes nothing.)
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        x, y = sample(values + _pixels(values))
        (a, b, e), (c, d, f) = matrix
        centre = torch.stack([a * x + b * y + e, c * x + d * y + f])
        return centre - _pixels(centre)


def _pixels(like: Tensor) -> Tensor:
    """The points [2, H, W] of all pixels."""
    height, width = like.shape[-2:]
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
