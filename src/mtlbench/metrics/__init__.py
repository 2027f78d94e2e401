"""Metrics as sums over the whole set: formula, mask and source in each docstring. See `task.Meter`.

Percentages are 0 to 100. A set without any label has no value (NaN); a NaN in a prediction makes a NaN of errors and
a miss of everything that is counted.
"""

from mtlbench.metrics.batch_mean import BatchMean
from mtlbench.metrics.classes import Accuracy, BinaryAccuracy, Confusion, TopAccuracy
from mtlbench.metrics.depth import DepthErrors
from mtlbench.metrics.edges import EdgeF, Saliency
from mtlbench.metrics.landmarks import LandmarkDistance
from mtlbench.metrics.normals import MedianAngle, NormalAngles
from mtlbench.metrics.regression import MeanAbsoluteError, MeanSquaredError
from mtlbench.task import IGNORE, Meter, Metric

__all__ = [
    "IGNORE",
    "Accuracy",
    "BatchMean",
    "BinaryAccuracy",
    "Confusion",
    "DepthErrors",
    "EdgeF",
    "LandmarkDistance",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MedianAngle",
    "Meter",
    "Metric",
    "NormalAngles",
    "Saliency",
    "TopAccuracy",
]
