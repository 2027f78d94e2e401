"""Losses: formula, mask and source in each docstring. All follow `task.Loss`: sums over global counts."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.task import IGNORE, Loss, Task


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


class Regression(Loss):
    """(1/N) sum over valid terms of a function of prediction - target; NaN = no label.

    prediction and target [B, C, H, W]. `reduction="components"` divides by valid components (the code of
    MGDA for offsets; our default), `"pixels"` by valid pixels, which for C channels is C times as much
    (IMTL does not say which it uses).
    """

    def __init__(self, reduction: str = "components"):
        if reduction not in ("components", "pixels"):
            raise ValueError(f"The reduction of a regression loss is components or pixels, not {reduction!r}.")
        self.reduction = reduction

    @abstractmethod
    def of(self, difference: Tensor) -> Tensor:
        """The term of each component."""

    def counts(self, target: Tensor) -> Tensor:
        valid = _count(~target.isnan())
        return valid / target.shape[1] if self.reduction == "pixels" else valid

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        # where(), not multiplication by the mask: the NaN of an invalid target must not reach the sum
        difference = torch.where(~target.isnan(), prediction - target, torch.zeros_like(prediction))
        return self.of(difference).sum() / counts[0].clamp(min=1).to(prediction.dtype)


class L1(Regression):
    """(1/N) sum over valid terms of |prediction - target| (IMTL, Liu et al. 2021, Appendix D; MGDA's code)."""

    def of(self, difference: Tensor) -> Tensor:
        return difference.abs()


class MSE(Regression):
    """(1/N) sum over valid terms of (prediction - target)^2 (MGDA, Sener & Koltun 2018, Appendix C)."""

    def of(self, difference: Tensor) -> Tensor:
        return difference.square()


class Scaled(Loss):
    """Another loss times a constant, before any method sees it (IMTL's test of robustness: 10 x segmentation)."""

    def __init__(self, loss: Loss, factor: float):
        if not factor > 0:
            raise ValueError(f"The factor of a loss must be above 0, not {factor}.")
        self.loss, self.factor = loss, factor

    def counts(self, target: Tensor) -> Tensor:
        return self.loss.counts(target)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return self.factor * self.loss(prediction, target, counts)


def scaled(tasks: Mapping[str, Task], factors: Mapping[str, float]) -> dict[str, Task]:
    """The tasks, the losses of those named in `factors` multiplied by a number above 0; metrics are what they were.

    Raises ValueError for a task that is not there and for a factor that is no finite number above 0.
    """
    for name, factor in factors.items():
        if name not in tasks:
            raise ValueError(
                f"loss_scale.{name}={factor}: there is no such task in this run. There are: {', '.join(tasks)}."
            )
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 < factor < math.inf:
            raise ValueError(f"loss_scale.{name}={factor}: expected a number above 0, which multiplies the loss.")
    return {n: replace(task, loss=Scaled(task.loss, factors[n])) if n in factors else task for n, task in tasks.items()}
