"""Edges and saliency by thresholds on a probability: prediction [B, 1, H, W] logits, target [B, H, W] or
[B, 1, H, W] integers 0, 1 or IGNORE = no label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.metrics.sums import SumMeter, histogram
from mtlbench.task import IGNORE, Metric

THRESHOLDS = 99
"""0.01 to 0.99, those of the Berkeley benchmark and of SEISM, which PASCAL's odsF comes from."""


class EdgeF(SumMeter):
    """F of edges in percent at the one threshold that is best for the whole set (optimal data set scale), ods_f.

    P = predicted edge pixels within `tolerance` pixels of a true one / predicted; R = true edge pixels within it of a
    predicted one / true; F = 2 P R / (P + R), counted over the set. Within is a square window.
    It is no substitute for the papers' odsF: SEISM thins the prediction and matches edges one to one.
    Raises ValueError for a negative tolerance.
    """

    metrics = (Metric("ods_f", True, "%"),)

    def __init__(self, tolerance: int = 2):
        if tolerance < 0:
            raise ValueError(f"tolerance={tolerance}: a number of pixels, 0 or more, is expected.")
        self.tolerance = tolerance

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[1 + 3 (THRESHOLDS + 1)]: labelled pixels; by the number of thresholds below them how many are all, all near
        a true edge, and, of the largest nearby, how many true edges."""
        target = target.reshape(prediction.shape)
        labelled, edge = target != IGNORE, target == 1
        probability = torch.where(labelled, prediction.sigmoid().nan_to_num(0.0), torch.zeros_like(prediction))
        near = self._largest_nearby(edge.to(prediction.dtype)) > 0
        here, around = _passed(probability), _passed(self._largest_nearby(probability))
        counts = [
            histogram(torch.where(where, passed, THRESHOLDS + 1).flatten(), THRESHOLDS + 1)
            for passed, where in ((here, labelled), (here, labelled & near), (around, edge))
        ]
        return torch.cat([labelled.sum(dtype=torch.float64).reshape(1), *counts])

    def of(self, sums: Tensor) -> Tensor:
        # how many are above the threshold j: those that passed more than j; whole numbers add up alike in any order
        above = sums[1:].reshape(3, -1).flip(1).long().cumsum(1).flip(1)[:, 1:].double()
        predicted, right, found = above
        true = sums[1:].reshape(3, -1)[2].sum()
        precision, recall = right / predicted.clamp(min=1), found / true
        f = 2 * precision * recall / (precision + recall)
        f = torch.where(precision + recall == 0, torch.zeros_like(f), f)
        return (100 * f.max()).reshape(1)  # NaN where there is no true edge at all

    def _largest_nearby(self, values: Tensor) -> Tensor:
        return F.max_pool2d(values, 2 * self.tolerance + 1, stride=1, padding=self.tolerance)


def _passed(probability: Tensor) -> Tensor:
    """How many of the thresholds lie below."""
    at = torch.arange(1, THRESHOLDS + 1, dtype=torch.float64, device=probability.device) / (THRESHOLDS + 1)
    return torch.bucketize(probability, at.to(probability.dtype), out_int32=True)


class Saliency(SumMeter):
    """max_iou and max_f in percent: of 15 thresholds from 0.2 to 0.9 the best mean over images.

    max_iou: of the mean IoU of (probability > t) and the true mask. max_f: of 2 P R / (P + R), P and R the means of
    precision and recall over images (the code of ASTMT and the survey). In an image where nothing is salient: IoU is 1
    if nothing is predicted either; precision without a prediction and recall without a true pixel are 1 if there is
    neither, and 0 otherwise. An image without any label is left out.
    """

    metrics = (Metric("max_iou", True, "%"), Metric("max_f", True, "%"))
    thresholds = tuple(i / 20 for i in range(4, 19))

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[1 + 3 x 15]: images; by threshold the sums over images of IoU, precision and recall."""
        target = target.reshape(prediction.shape).flatten(1)
        probability = prediction.sigmoid().flatten(1)
        labelled, true = target != IGNORE, target == 1
        counted = labelled.any(1)
        found = []
        for t in self.thresholds:
            there = (probability > t) & labelled
            both, either = (there & true).sum(1), (there | true).sum(1)
            ratios = [both / n for n in (either, there.sum(1), true.sum(1))]
            ratios = [torch.where(either == 0, 1.0, ratio.nan_to_num(0.0)) for ratio in ratios]
            found.append(torch.stack([torch.where(counted, r, 0.0).sum(dtype=torch.float64) for r in ratios]))
        return torch.cat([counted.sum(dtype=torch.float64).reshape(1), torch.stack(found, 1).flatten()])

    def of(self, sums: Tensor) -> Tensor:
        iou, precision, recall = sums[1:].reshape(3, -1) / sums[0]
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        return 100 * torch.stack([iou.max(), f.max()])
