"""Losses: formula, mask and source in each docstring. All follow `task.Loss`: sums over global counts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.task import IGNORE, Loss


def _count(mask: Tensor) -> Tensor:
    return mask.sum(dtype=torch.float64).reshape(1)


class CrossEntropy(Loss):
    """-(1/N) sum over labelled terms of log softmax(prediction)[label]; N counts the labelled terms.

    prediction [B, C, ...], target [B, ...] integer, `ignore_index` = no label.
    With log-softmax inside it is MGDA's NLL as well (Sener & Koltun 2018, Section 5.1).
    """

    def __init__(self, ignore_index: int = IGNORE):
        self.ignore_index = ignore_index

    def counts(self, target: Tensor) -> Tensor:
        return _count(target != self.ignore_index)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        total = F.cross_entropy(
            prediction, target.long(), ignore_index=self.ignore_index, reduction="sum"
        )  # an all-ignored target gives 0 with a zero gradient
        return total / counts[0].clamp(min=1).to(total.dtype)


class L1(Loss):
    """(1/N) sum over valid terms of |prediction - target|; N counts valid components (NaN = no label).

    prediction and target [B, C, H, W]. `reduction="components"` divides by valid components (the code of
    MGDA for offsets; our default), `"pixels"` by valid pixels, which for C channels is C times as much
    (IMTL does not say which it uses).
    """

    def __init__(self, reduction: str = "components"):
        if reduction not in ("components", "pixels"):
            raise ValueError(f"L1 reduction must be components or pixels, not {reduction!r}.")
        self.reduction = reduction

    def counts(self, target: Tensor) -> Tensor:
        valid = _count(~target.isnan())
        return valid / target.shape[1] if self.reduction == "pixels" else valid

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        valid = ~target.isnan()
        # where(), not multiplication by the mask: what lies under an invalid target must not reach the sum
        difference = torch.where(valid, prediction - target.nan_to_num(0.0), torch.zeros_like(prediction))
        return difference.abs().sum() / counts[0].clamp(min=1).to(prediction.dtype)
