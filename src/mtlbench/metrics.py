"""Metrics as sums over the whole set: formula, mask and source in each docstring. See `task.Meter`."""

import torch
from torch import Tensor

from mtlbench.task import IGNORE, Meter, Metric


class Accuracy(Meter):
    """Percent of labelled images whose largest output is the label. prediction [B, C], target [B]."""

    metrics = (Metric("accuracy", True, "%"),)

    def __init__(self, ignore_index: int = IGNORE):
        self.ignore_index = ignore_index

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        labelled = target != self.ignore_index
        correct = (prediction.argmax(1) == target) & labelled
        return torch.stack([correct.sum(), labelled.sum()]).double()

    def values(self, sums: Tensor) -> dict[str, float]:
        correct, labelled = sums.tolist()
        return {"accuracy": 100 * correct / labelled if labelled else float("nan")}


class Confusion(Meter):
    """mIoU and pixel accuracy in percent from one confusion matrix over the whole set.

    IoU_c = TP / (TP + FP + FN) over labelled pixels (the official Cityscapes definition). A class found
    neither in labels nor predictions has no IoU: `absent="skip"` leaves it out of the mean (official, MGDA's
    code), `"nan"` makes the mean NaN (MTAN, LibMTL, CAGrad), `"zero"` counts it 0 (the survey's code).
    prediction [B, classes, H, W], target [B, H, W].
    """

    metrics = (Metric("miou", True, "%"), Metric("pixel_accuracy", True, "%"))

    def __init__(self, classes: int, ignore_index: int = IGNORE, absent: str = "skip"):
        if absent not in ("skip", "nan", "zero"):
            raise ValueError(f"absent must be skip, nan or zero, not {absent!r}.")
        self.classes, self.ignore_index, self.absent = classes, ignore_index, absent

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        labelled = target != self.ignore_index
        pairs = target[labelled].long() * self.classes + prediction.argmax(1)[labelled]
        return torch.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes).double()

    def values(self, sums: Tensor) -> dict[str, float]:
        true_positive = sums.diagonal()
        union = sums.sum(0) + sums.sum(1) - true_positive
        iou = true_positive / union  # NaN where the class is absent
        if self.absent == "skip":
            iou = iou[union > 0]
        elif self.absent == "zero":
            iou = iou.nan_to_num(0.0)
        accuracy = true_positive.sum() / sums.sum()
        return {"miou": 100 * iou.mean().item(), "pixel_accuracy": 100 * accuracy.item()}


class MeanAbsoluteError(Meter):
    """Mean of |prediction - target| over valid components of the whole set, in the target's unit.

    prediction and target [B, C, H, W], NaN = no label. `reduction="pixels"` divides by valid pixels instead,
    so that the channels are added (IMTL does not say which it reports for its two offsets).
    """

    def __init__(self, unit: str, name: str = "l1", reduction: str = "components"):
        if reduction not in ("components", "pixels"):
            raise ValueError(f"The reduction of a regression metric is components or pixels, not {reduction!r}.")
        self.metrics = (Metric(name, False, unit),)
        self.reduction = reduction

    def of(self, difference: Tensor) -> Tensor:
        """The term of each component."""
        return difference.abs()

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        valid = ~target.isnan()
        difference = torch.where(valid, prediction - target, torch.zeros_like(prediction))
        count = valid.sum(dtype=torch.float64)
        count = count / target.shape[1] if self.reduction == "pixels" else count
        return torch.stack([self.of(difference).sum(dtype=torch.float64), count])

    def values(self, sums: Tensor) -> dict[str, float]:
        error, valid = sums.tolist()
        return {self.metrics[0].name: error / valid if valid else float("nan")}


class MeanSquaredError(MeanAbsoluteError):
    """Mean of (prediction - target)^2, otherwise as MeanAbsoluteError (MGDA, Sener & Koltun 2018, Appendix C)."""

    def __init__(self, unit: str, name: str = "mse", reduction: str = "components"):
        super().__init__(unit, name, reduction)

    def of(self, difference: Tensor) -> Tensor:
        return difference.square()
