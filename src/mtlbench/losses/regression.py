"""Losses of numbers; NaN = no label."""

from abc import abstractmethod
from itertools import product

import torch
from torch import Tensor

from mtlbench.losses.counting import all_of, count, share
from mtlbench.task import Loss


class Regression(Loss):
    """(1/N) sum over valid terms of a function of prediction - target; NaN = no label.

    prediction and target [B, C, H, W], or [B, C] (landmarks: x and y of each point). `reduction="components"` divides
    by valid components (the code of MGDA for offsets; our default), `"pixels"` by valid pixels, which for C channels
    is C times as much (IMTL does not say which it uses), `"all"` by all components, valid or not (Taskonomy in the
    code of Standley et al.: the fewer are valid, the smaller the loss).
    """

    def __init__(self, reduction: str = "components"):
        if reduction not in ("components", "pixels", "all"):
            raise ValueError(f"The reduction of a regression loss is components, pixels or all, not {reduction!r}.")
        self.reduction = reduction

    @abstractmethod
    def of(self, difference: Tensor) -> Tensor:
        """The term of each component."""

    def counts(self, target: Tensor) -> Tensor:
        valid = count(~target.isnan())
        if self.reduction == "all":
            return torch.cat([valid, all_of(target)])
        return valid / target.shape[1] if self.reduction == "pixels" else valid

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        # where(), not multiplication by the mask: the NaN of an invalid target must not reach the sum
        difference = torch.where(~target.isnan(), prediction - target, torch.zeros_like(prediction))
        return share(self.of(difference).sum(), counts[-1])


class L1(Regression):
    """(1/N) sum over valid terms of |prediction - target| (IMTL, Liu et al. 2021, Appendix D; MGDA's code)."""

    def of(self, difference: Tensor) -> Tensor:
        return difference.abs()


class MSE(Regression):
    """(1/N) sum over valid terms of (prediction - target)^2 (MGDA, Sener & Koltun 2018, Appendix C)."""

    def of(self, difference: Tensor) -> Tensor:
        return difference.square()


class LogL1(Loss):
    """(1/N) sum over labelled terms of |log prediction - log target| (LSB, Lee et al. 2021, Section 4, depth).

    prediction and target [B, 1, H, W]; a target that is 0 or below is no label.
    `predicts="log"`: what the network gives is the logarithm; `"value"`: it is the depth, of which `least` is the least
    that counts: below it the gradient is zero. The paper does not say which.
    """

    def __init__(self, predicts: str = "log", least: float = 1e-6):
        if predicts not in ("log", "value") or not least > 0:
            raise ValueError(f"predicts={predicts!r} least={least}: log or value, and a number above 0, are expected.")
        self.predicts, self.least = predicts, least

    def counts(self, target: Tensor) -> Tensor:
        return count(target > 0)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        valid = target > 0
        found = torch.where(valid, prediction, torch.ones_like(prediction))
        found = found.clamp(min=self.least).log() if self.predicts == "value" else found
        wanted = torch.where(valid, target, torch.ones_like(target)).to(found.dtype).log()
        return share(torch.where(valid, found - wanted, torch.zeros_like(found)).abs().sum(), counts[0])


class ShiftedL1(Loss):
    """Per image the least, over 9 shifts of the prediction by at most one pixel, of the mean |prediction - target|.

    Pixels of the border have no part in it, those without a label count as 0 and in the number; the mean over images
    is the loss (`rotate_loss` in the code of Standley et al. for Taskonomy). prediction and target [B, C, H, W].
    """

    def counts(self, target: Tensor) -> Tensor:
        images = torch.full((1,), len(target), dtype=torch.float64, device=target.device)
        return torch.cat([count(~target[..., 1:-1, 1:-1].isnan()), images])

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        height, width = target.shape[-2:]
        inner = target[..., 1:-1, 1:-1]
        valid = ~inner.isnan()
        means = []
        for y, x in product((1, 0, 2), repeat=2):  # the middle first: of equal ones it is taken
            shifted = prediction[..., y : y + height - 2, x : x + width - 2]
            means.append(torch.where(valid, shifted - inner, torch.zeros_like(shifted)).abs().flatten(1).mean(1))
        return share(torch.stack(means).min(0).values.sum(), counts[1])
