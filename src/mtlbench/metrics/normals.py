"""Angles between predicted and true surface normals."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.metrics.sums import SumMeter, histogram, total
from mtlbench.task import Metric

BINS = 18_000
"""Of the histogram of angles from 0 to 180 degrees: 0.01 degrees each."""


class NormalAngles(SumMeter):
    """Angles in degrees between prediction / |prediction| and target, over labelled pixels of the whole set.

    mean_angle      their mean
    median_angle    their median: of a histogram of bins 0.01 degrees wide that is summed over batches and ranks, the
                    middle of the bin in which the middle angle lies (of two bins the mean). It is at most 0.005
                    degrees off. `median=False` leaves it out: `MedianAngle` is exact, `BatchMean(MedianAngle(), n)` is
                    the mean of the medians of batches of n (MTAN, CAGrad, Nash-MTL)
    within_<t>      percent below t, of each of `thresholds`
    rmse_angle      the square root of the mean square, if `rmse`
    cos             mean of the cosine, between -1 and 1, if `cosine` (IMTL, Liu et al. 2021, Table 1)

    prediction and target [B, 3, H, W], NaN = no label. The angle is 2 atan2(|p - n|, |p + n|), which keeps its digits
    near 0 where acos of a product loses half of them. `primary` names the metric that comes first.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (11.25, 22.5, 30),
        median: bool = True,
        rmse: bool = False,
        cosine: bool = False,
        primary: str = "mean_angle",
    ):
        self.thresholds, self.median = tuple(thresholds), median
        made = [Metric("mean_angle", False, "°")]
        made += [Metric("median_angle", False, "°", error=90 / BINS)] if median else []
        made += [Metric(f"within_{t:g}", True, "%") for t in self.thresholds]
        made += [Metric("rmse_angle", False, "°")] if rmse else []
        made += [Metric("cos", True)] if cosine else []
        names = [metric.name for metric in made]
        if primary not in names:
            raise ValueError(f"primary={primary}: expected one of {', '.join(names)}.")
        self.order = [names.index(primary), *(i for i, name in enumerate(names) if name != primary)]
        self.metrics = tuple(made[i] for i in self.order)
        self.all = names

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[4 + thresholds + BINS]: labelled pixels, sums of angle, square and cosine, numbers below, the histogram."""
        labelled = ~target.isnan().any(1)
        angle = angles(prediction, target)
        found = [
            labelled.sum(dtype=torch.float64),
            total(angle, labelled),
            total(angle.square(), labelled),
            total(torch.cos(torch.deg2rad(angle)), labelled),
            *(((angle < t) & labelled).sum(dtype=torch.float64) for t in self.thresholds),
        ]
        sums = torch.stack(found)
        if not self.median:
            return sums
        bins = (angle.nan_to_num(0.0) * (BINS / 180)).to(torch.int32).clamp(max=BINS - 1)
        return torch.cat([sums, histogram(torch.where(labelled, bins, BINS).flatten(), BINS)])

    def of(self, sums: Tensor) -> Tensor:
        number, angle, square, cosine = sums[:4]
        below = sums[4 : 4 + len(self.thresholds)]
        mean = angle / number
        found = {"mean_angle": mean, "rmse_angle": (square / number).sqrt(), "cos": cosine / number}
        # + 0 * mean: a NaN among the predictions is seen in all
        found |= {f"within_{t:g}": 100 * b / number + 0 * mean for t, b in zip(self.thresholds, below, strict=True)}
        if self.median:
            found["median_angle"] = _middle(sums[4 + len(self.thresholds) :]) * (180 / BINS) + 0 * mean
        return torch.stack([found[self.all[i]] for i in self.order])


class MedianAngle(SumMeter):
    """The exact median of the angles in degrees, of all of them laid end to end over batches and ranks; of an even
    number the mean of the middle two (numpy's).

    It holds 4 bytes a pixel of the set until the end, labelled or not: 0.8 GB for NYUv2's 654 images of 480 x 640, on
    each rank.
    """

    metrics = (Metric("median_angle", False, "°"),)
    gathers = True

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The angles [pixels] and not their sums; -1 where there is no label."""
        labelled = ~target.isnan().any(1)
        return torch.where(labelled, angles(prediction, target), -1.0).flatten()

    def of(self, sums: Tensor) -> Tensor:
        ordered = sums.sort().values  # those without a label first, a NaN last
        number = (sums >= 0).sum() + sums.isnan().sum()
        first = len(sums) - number
        places = torch.stack([first + (number - 1).clamp(min=0) // 2, first + number // 2]).clamp(max=len(sums) - 1)
        middle = ordered[places].double().mean() + 0 * ordered[-1]
        return torch.where(number > 0, middle, math.nan).reshape(1)


def angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees [B, H, W] between prediction / |prediction| and target, both [B, 3, H, W]; NaN where either is."""
    found = F.normalize(prediction, dim=1)
    half = torch.atan2((found - target).norm(dim=1), (found + target).norm(dim=1))
    return torch.rad2deg(2 * half)


def _middle(histogram: Tensor) -> Tensor:
    """The median of numbers in bins [bins], in bins: the middle of its own, or the mean of two."""
    below = histogram.long().cumsum(0)
    number = below[-1]
    ranks = torch.stack([(number + 1) // 2, number // 2 + 1])  # of the two in the middle, from 1
    return (torch.searchsorted(below, ranks).double() + 0.5).mean()
