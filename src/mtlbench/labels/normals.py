"""Surface normals: [3, H, W] float unit vectors, NaN = no label.

Components are (x, y, z) in the camera's axes: x right and y down in the image, z along the optical axis, towards
the viewer or away from it (both behave alike here). Readers bring files of other axes into these.
"""

import torch
from torch import Tensor

from mtlbench.labels.geometry import Label, Matrix, Sample


class Normals(Label):
    """Unit normals that turn, mirror and foreshorten with the image.

    Enlarging by s: n' = (x, y, s z) / |(x, y, s z)|; a rotation turns (x, y) as it turns the image; a flip negates x
    (IMTL, Liu et al. 2021, Appendix D). In general, for a map of the image plane with the linear part A: the camera
    of the same focal length sees (X, Y) changed by A at the same Z, up to a size, so n' ~ (A^-T (x, y), z).
    Resizing a whole image is none of this, since the focal length goes with it, see `Label.refocused`.
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        x, y, z = sample(values)
        (a, b, _), (c, d, _) = matrix
        determinant = a * d - b * c
        p, q, r, s = d / determinant, -c / determinant, -b / determinant, a / determinant  # A^-T
        turned = torch.stack([p * x + q * y, r * x + s * y, z])
        turns_only = max(abs(p * p + q * q - 1), abs(r * r + s * s - 1), abs(p * r + q * s)) < 1e-9
        return turned if turns_only else _unit(turned)

    @classmethod
    def refocused(cls, values: Tensor, resolution: tuple[float, float]) -> Tensor:
        fy, fx = resolution
        if (fy, fx) == (1.0, 1.0):
            return values
        x, y, z = values
        return _unit(torch.stack([fx * x, fy * y, z]))


class UnscaledNormals(Label):
    """Normals that turn and mirror with the image and are not changed by scaling (the MTAN family's code)."""

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        x, y, z = sample(values)
        (a, b, _), (c, d, _) = matrix
        h, k = (a * a + c * c) ** 0.5, (b * b + d * d) ** 0.5
        return torch.stack([a / h * x + b / k * y, c / h * x + d / k * y, z])


class BlendedNormals(UnscaledNormals):
    """As `UnscaledNormals`, and interpolated like the image without becoming unit vectors again, no label being
    (0, 0, 0): what `RandomScaleCrop` of LibMTL and CAGrad makes of them. Only `scale_crop.ScaleCrop` interpolates."""

    blended = True


NORMALS: dict[str, type[Label]] = {"imtl": Normals, "none": UnscaledNormals, "mtan": BlendedNormals}
"""What enlarging does to normals: the values of an option of data sets."""


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [3, H, W] of length 1; (0, 0, 0) stays."""
    length = vectors.square().sum(0, keepdim=True).sqrt()
    return vectors / torch.where(length == 0, torch.ones_like(length), length)
