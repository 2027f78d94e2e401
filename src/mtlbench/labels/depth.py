"""Disparity, inverse depth and depth: [1, H, W] float, NaN = no label.

An image enlarged by s, seen by a camera of the same focal length, shows things s times as near: with f the focal
length in pixels, b the baseline and Z the depth, disparity = f b / Z is s times as large, depth s times as small
(IMTL, Liu et al. 2021, Appendix D). Of the two factors of an unequal scaling that of the width counts. A rotation,
a flip or a crop changes no value.

Resizing a whole data set changes f as well: a depth in metres stays then, a disparity in pixels does not. See
`Label.refocused`, which `transforms.see` applies.
"""

import math

from torch import Tensor

from mtlbench.labels.geometry import Label, Matrix, Sample


class Disparity(Label):
    """Disparity [1, H, W] in pixels of the image's width, NaN = no label.

    Enlarging by s multiplies it by s (IMTL, Liu et al. 2021, Appendix D), of the two factors the one of the
    width. A rotation or a flip leaves it as it is.
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values) * _factor(matrix)


class InverseDepth(Label):
    """A number proportional to 1 / depth [1, H, W], in any unit that is not the image's pixels.

    Enlarging by s multiplies it by s (IMTL, Appendix D; the code of Auto-Lambda), resizing whole images does not.
    MTAN's Cityscapes has it: disparity / 256 pixels of an image 2048 wide, whatever the image's size is now.
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values) * _factor(matrix)

    @classmethod
    def refocused(cls, values: Tensor, resolution: tuple[float, float]) -> Tensor:
        return values / resolution[1]


class MetricDepth(Label):
    """Depth along the optical axis [1, H, W] in metres. Enlarging by s divides it by s (IMTL, Appendix D; the code of
    LibMTL, CAGrad, Auto-Lambda, ASTMT and the survey), resizing whole images does not."""

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values) / _factor(matrix)

    @classmethod
    def refocused(cls, values: Tensor, resolution: tuple[float, float]) -> Tensor:
        return values * resolution[1]


class EuclideanDepth(MetricDepth):
    """Distance to the camera's centre [1, H, W] in metres, treated as depth along the axis is.

    Enlarging by s divides it by s: exact at the principal point; at r focal lengths from there the distance would
    really become Z / s * sqrt(1 + s^2 r^2) and not Z / s * sqrt(1 + r^2). No public code does otherwise.
    """


class DividedInverseDepth(MetricDepth):
    """Inverse depth that is divided by s where it should be multiplied: the code of CAGrad for Cityscapes, which treats
    it as metric depth (and Elich et al. 2023, who point to that code)."""


class UnscaledInverseDepth(Label):
    """Inverse depth whose values are left alone."""

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        return sample(values)


class UnscaledMetricDepth(UnscaledInverseDepth):
    """Depth in metres whose values are left alone."""


INVERSE_DEPTH: dict[str, type[Label]] = {
    "mul": InverseDepth,
    "div": DividedInverseDepth,
    "none": UnscaledInverseDepth,
}
"""What enlarging by s does to inverse depth: the values of an option of data sets."""

METRIC_DEPTH: dict[str, type[Label]] = {"div": MetricDepth, "none": UnscaledMetricDepth}
"""What enlarging by s does to metric depth."""


def _factor(matrix: Matrix) -> float:
    (a, _, _), (c, _, _) = matrix
    return math.hypot(a, c)
