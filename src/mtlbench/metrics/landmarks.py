"""Distances of points."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlbench.metrics.sums import SumMeter
from mtlbench.task import Metric


class LandmarkDistance(SumMeter):
    """Mean distance |prediction - target| of points, over the labelled points of the whole set.

    distance    of all points
    <group>     of the points of each group (LSB, Lee et al. 2021, Table 7: eye, nose, mouth)
    nme         percent: the distance over that of the two true points `between` (the eyes), image by image; images in
                which these are not labelled or are one point are left out

    prediction [B, 2 P] (x, y of each point in turn), target [B, 2 P] or [B, P, 2], NaN = no label.
    Raises ValueError for groups without points.
    """

    def __init__(
        self, unit: str = "px", groups: Mapping[str, Sequence[int]] | None = None, between: Sequence[int] | None = None
    ):
        self.groups = {name: list(points) for name, points in (groups or {}).items()}
        if not all(self.groups.values()) or (between is not None and len(between) != 2):
            raise ValueError(f"groups={groups} between={between}: points of each group, and two points, are expected.")
        self.between = None if between is None else list(between)
        self.metrics = (
            Metric("distance", False, unit),
            *(Metric(name, False, unit) for name in self.groups),
            *([] if between is None else [Metric("nme", False, "%")]),
        )

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[2 K]: of each metric the number of points and the sum of its distances."""
        target = target.reshape(len(target), -1, 2)
        distance = (prediction.reshape(target.shape) - target).norm(dim=2)
        labelled = ~target.isnan().any(2)
        parts = [(distance, labelled)]
        parts += [(distance[:, points], labelled[:, points]) for points in self.groups.values()]
        if self.between is not None:
            first, second = target[:, self.between].unbind(1)
            apart = (first - second).norm(dim=1, keepdim=True)
            parts.append((100 * distance / apart, labelled & (apart > 0)))
        found = [
            (where.sum(), torch.where(where, values, torch.zeros_like(values)).sum(dtype=torch.float64))
            for values, where in parts
        ]
        return torch.stack([x.double() for pair in found for x in pair])

    def of(self, sums: Tensor) -> Tensor:
        number, distance = sums.reshape(-1, 2).T
        return distance / number
