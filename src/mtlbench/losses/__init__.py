"""Losses: formula, mask and source in each docstring. All follow `task.Loss`: sums over global counts.

A batch without any label gives 0 with a zero gradient (public codes give NaN); the step counts it as absent.
"""

from mtlbench.losses.binary import BalancedBinaryCrossEntropy, BinaryCrossEntropy
from mtlbench.losses.classes import CrossEntropy, SoftCrossEntropy
from mtlbench.losses.normals import Cosine, NormalL1
from mtlbench.losses.regression import L1, MSE, LogL1, Regression, ShiftedL1
from mtlbench.losses.scaling import Scaled, scaled
from mtlbench.task import Loss

__all__ = [
    "L1",
    "MSE",
    "BalancedBinaryCrossEntropy",
    "BinaryCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "LogL1",
    "Loss",
    "NormalL1",
    "Regression",
    "Scaled",
    "ShiftedL1",
    "SoftCrossEntropy",
    "scaled",
]
