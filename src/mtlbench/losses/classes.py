"""Losses of classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.losses.counting import all_of, count, share
from mtlbench.task import IGNORE, Loss


class CrossEntropy(Loss):
    """-(1/N) sum over labelled terms of log softmax(prediction)[label]; N counts the labelled terms.

    prediction [B, C, ...], target [B, ...] integer, `ignore_index` = no label.
    With log-softmax inside it is MGDA's NLL as well (Sener & Koltun 2018, Section 5.1).
    `divide_by="all"`: N counts the terms without a label as well (MGDA's code, where their number scales the loss).
    """

    def __init__(self, ignore_index: int = IGNORE, divide_by: str = "labelled"):
        if divide_by not in ("labelled", "all"):
            raise ValueError(f"Cross-entropy is divided by labelled or all terms, not by {divide_by!r}.")
        self.ignore_index, self.divide_by = ignore_index, divide_by

    def counts(self, target: Tensor) -> Tensor:
        labelled = count(target != self.ignore_index)
        return torch.cat([labelled, all_of(target)]) if self.divide_by == "all" else labelled

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        total = F.cross_entropy(
            prediction, target.long(), ignore_index=self.ignore_index, reduction="sum"
        )  # an all-ignored target gives 0 with a zero gradient
        return share(total, counts[-1])


class SoftCrossEntropy(Loss):
    """-(1/N) sum over labelled images of sum_c target_c log softmax(prediction)_c; N counts the images.

    prediction [B, C], target [B, C] probabilities that sum to 1, NaN = no label (Taskonomy's scene classes, of which
    the authors keep 63 of 365 and divide by their sum).
    """

    def counts(self, target: Tensor) -> Tensor:
        return count(~target.isnan().any(1))

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        labelled = ~target.isnan().any(1, keepdim=True)
        logits = torch.where(labelled, prediction, torch.zeros_like(prediction))
        wanted = torch.where(labelled, target, torch.zeros_like(target)).to(prediction.dtype)
        return share(-(wanted * logits.log_softmax(1)).sum(), counts[0])
