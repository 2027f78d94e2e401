"""Label types that know what a change of the image does to their values.

They are torchvision tv_tensors, so its v2 functions treat an image and its labels alike. A change of geometry
is nearest-neighbour sampling (values of two pixels are never mixed, and invalid ones never leak into valid
ones) and an affine map of the plane; a label type adds one method, `moved`, that says what the map does to
the values. Points are (x, y), x right and y down; the centre of the first pixel is (0, 0).
"""

from mtlbench.labels.depth import (
    INVERSE_DEPTH,
    METRIC_DEPTH,
    Disparity,
    DividedInverseDepth,
    EuclideanDepth,
    InverseDepth,
    MetricDepth,
    UnscaledInverseDepth,
    UnscaledMetricDepth,
)
from mtlbench.labels.geometry import GEOMETRY, REFUSED, Label, Matrix, Sample, Size
from mtlbench.labels.maps import ClassMap, Curvature, Edges, InstanceOffset, KeypointMap, Reshading, Scalars
from mtlbench.labels.normals import NORMALS, BlendedNormals, Normals, UnscaledNormals
from mtlbench.labels.unmapped import Landmarks, WholeImage, partners

__all__ = [
    "GEOMETRY",
    "INVERSE_DEPTH",
    "METRIC_DEPTH",
    "NORMALS",
    "REFUSED",
    "BlendedNormals",
    "ClassMap",
    "Curvature",
    "Disparity",
    "DividedInverseDepth",
    "Edges",
    "EuclideanDepth",
    "InstanceOffset",
    "InverseDepth",
    "KeypointMap",
    "Label",
    "Landmarks",
    "Matrix",
    "MetricDepth",
    "Normals",
    "Reshading",
    "Sample",
    "Scalars",
    "Size",
    "UnscaledInverseDepth",
    "UnscaledMetricDepth",
    "UnscaledNormals",
    "WholeImage",
    "partners",
]
