"""Errors of numbers in general."""

import math

import torch
from torch import Tensor

from mtlbench.metrics.sums import SumMeter
from mtlbench.task import Metric


class MeanAbsoluteError(SumMeter):
    """Mean of |prediction - target| over valid components of the whole set, in the target's unit.

    prediction and target [B, C, H, W], NaN = no label. `reduction="pixels"` divides by valid pixels instead,
    so that the channels are added (IMTL does not say which it reports for its two offsets); `"all"` by all
    components, valid or not (Taskonomy in the code of Standley et al.).
    factor: of the reported number (100 for the edges and keypoints of the survey's Table 5).
    """

    def __init__(self, unit: str, name: str = "l1", reduction: str = "components", factor: float = 1.0):
        if reduction not in ("components", "pixels", "all"):
            raise ValueError(f"The reduction of a regression metric is components, pixels or all, not {reduction!r}.")
        self.metrics = (Metric(name, False, unit),)
        self.reduction, self.factor = reduction, factor

    def of_component(self, difference: Tensor) -> Tensor:
        """The term of each component."""
        return difference.abs()

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[3]: valid components, what is divided by, the sum of the terms."""
        valid = ~target.isnan()
        difference = torch.where(valid, prediction - target, torch.zeros_like(prediction))
        count = valid.sum(dtype=torch.float64)
        number = {
            "components": count,
            "pixels": count / target.shape[1],
            "all": torch.full_like(count, target.numel()),
        }[self.reduction]
        return torch.stack([count, number, self.of_component(difference).sum(dtype=torch.float64)])

    def of(self, sums: Tensor) -> Tensor:
        count, number, error = sums
        return torch.where(count > 0, self.factor * error / number, math.nan).reshape(1)


class MeanSquaredError(MeanAbsoluteError):
    """Mean of (prediction - target)^2, otherwise as MeanAbsoluteError (MGDA, Sener & Koltun 2018, Appendix C)."""

    def __init__(self, unit: str, name: str = "mse", reduction: str = "components", factor: float = 1.0):
        super().__init__(unit, name, reduction, factor)

    def of_component(self, difference: Tensor) -> Tensor:
        return difference.square()
