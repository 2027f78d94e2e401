"""Metrics of classes: one per image, one per pixel, several of yes and no."""

import math

import torch
from torch import Tensor

from mtlbench.metrics.sums import SumMeter, histogram
from mtlbench.task import IGNORE, Metric

REPORTS = {"accuracy": (True, lambda percent: percent), "error": (False, lambda percent: 100 - percent)}
"""What is reported of the percentage that is right: itself, or what it lacks of 100."""


def _metric(report: str) -> Metric:
    if report not in REPORTS:
        raise ValueError(f"What is reported must be accuracy or error, not {report!r}.")
    return Metric(report, REPORTS[report][0], "%")


class Accuracy(SumMeter):
    """Percent of labelled images whose largest output is the label. prediction [B, C], target [B].

    `report="error"`: the percentage of the others (MGDA, Sener & Koltun 2018, Table 1).
    """

    def __init__(self, ignore_index: int = IGNORE, report: str = "accuracy"):
        self.ignore_index, self.report = ignore_index, report
        self.metrics = (_metric(report),)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        labelled = target != self.ignore_index
        largest, found = prediction.max(1)
        correct = (found == target) & labelled & ~largest.isnan()
        return torch.stack([labelled.sum(), correct.sum()]).double()

    def of(self, sums: Tensor) -> Tensor:
        labelled, correct = sums
        return REPORTS[self.report][1](100 * correct / labelled).reshape(1)


class TopAccuracy(SumMeter):
    """Percent of labelled images whose label is among the k largest outputs (the survey's scenes: 5).

    prediction [B, C]; target [B] integers, IGNORE = no label, or [B, C] probabilities, NaN = no label, of which the
    largest is the label. An output as large as the label's does not push it out.
    """

    def __init__(self, k: int = 5):
        if k < 1:
            raise ValueError(f"k={k}: 1 or more is expected.")
        self.k = k
        self.metrics = (Metric(f"top{k}_accuracy", True, "%"),)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        labelled = ~target.isnan().any(1) if target.is_floating_point() else target != IGNORE
        label = target.argmax(1) if target.is_floating_point() else target.long()
        own = prediction.gather(1, torch.where(labelled, label, torch.zeros_like(label))[:, None])
        before = (~(prediction <= own)).sum(1)  # a NaN is before everything
        return torch.stack([labelled.sum(), ((before < self.k) & labelled).sum()]).double()

    def of(self, sums: Tensor) -> Tensor:
        labelled, correct = sums
        return (100 * correct / labelled).reshape(1)


class BinaryAccuracy(SumMeter):
    """Percent right of each attribute over its labelled images, then the mean over attributes that have any.

    prediction [B, K] logits, above 0 is yes; target [B, K] (or [B] for K = 1) integers 0, 1 or IGNORE = no label.
    `report="error"`: the percentage that is wrong (MGDA, Table 1).
    """

    def __init__(self, report: str = "accuracy"):
        self.report = report
        self.metrics = (_metric(report),)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        target = target.reshape(prediction.shape)
        right = torch.where(target == 1, prediction > 0, prediction <= 0) & (target != IGNORE)
        labelled = (target != IGNORE).sum(0).double()
        return torch.cat([labelled.sum().reshape(1), labelled, right.sum(0).double()])

    def of(self, sums: Tensor) -> Tensor:
        labelled, right = sums[1:].reshape(2, -1)
        return REPORTS[self.report][1]((100 * right / labelled).nanmean()).reshape(1)


class Confusion(SumMeter):
    """mIoU and pixel accuracy in percent from one confusion matrix over the whole set.

    IoU_c = TP / (TP + FP + FN) over labelled pixels (the official Cityscapes definition). A class found
    neither in labels nor predictions has no IoU: `absent="skip"` leaves it out of the mean (official, MGDA's
    code), `"nan"` makes the mean NaN (MTAN, LibMTL, CAGrad), `"zero"` counts it 0 (the survey's code).
    prediction [B, classes, H, W], target [B, H, W]. values() raises ValueError where a label is no class. A NaN among
    the predictions of labelled pixels makes both NaN.

    MTAN's numbers before November 2020 are means over images of each one's: `BatchMean(Confusion(...), images=1)`.
    """

    metrics = (Metric("miou", True, "%"), Metric("pixel_accuracy", True, "%"))

    def __init__(self, classes: int, ignore_index: int = IGNORE, absent: str = "skip"):
        if absent not in ("skip", "nan", "zero"):
            raise ValueError(f"absent must be skip, nan or zero, not {absent!r}.")
        self.classes, self.ignore_index, self.absent = classes, ignore_index, absent

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[2 + classes^2]: labelled pixels, those of them whose label is no class, the matrix (label, prediction)."""
        labelled = target != self.ignore_index
        known = (target >= 0) & (target < self.classes) & labelled
        number = self.classes * self.classes
        largest, found = prediction.max(1)  # on a CPU a third of the time of argmax
        pairs = torch.where(known, target.to(torch.int32) * self.classes + found.to(torch.int32), number).flatten()
        count = labelled.sum(dtype=torch.float64)
        wrong = count - known.sum(dtype=torch.float64)
        bad = torch.where((largest.isnan() & labelled).any(), math.nan, 0.0)  # a NaN would count as its class
        return torch.cat([torch.stack([count, wrong]), histogram(pairs, number) + bad])

    def of(self, sums: Tensor) -> Tensor:
        matrix = sums[2:].reshape(self.classes, self.classes)
        true_positive = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - true_positive
        iou = true_positive / union  # NaN where the class is absent
        if self.absent == "skip":
            iou = iou.nanmean()
        elif self.absent == "zero":
            iou = torch.where(union == 0, 0.0, iou)
        return 100 * torch.stack([iou.mean(), true_positive.sum() / matrix.sum()])

    def values(self, sums: Tensor) -> dict[str, float]:
        if sums[1] > 0:
            raise ValueError(
                f"{int(sums[1]):,} of {int(sums[0]):,} labelled pixels have a label that is none of the classes 0 to "
                f"{self.classes - 1} and not {self.ignore_index} (no label). Check labels and number of classes."
            )
        return super().values(sums)
