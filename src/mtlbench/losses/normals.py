"""Losses of surface normals: prediction and target [B, 3, H, W], NaN = no label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.losses.counting import count, share
from mtlbench.task import Loss


class Cosine(Loss):
    """1 - (1/N) sum over labelled pixels of <n', n>, with n' = prediction / |prediction|, n the target.

    IMTL (Liu et al. 2021, Appendix D), LSB and the MTAN family. `normalise=False` takes the prediction as it is, for
    networks that normalise it themselves (MTAN, CAGrad, Nash-MTL).
    """

    def __init__(self, normalise: bool = True):
        self.normalise = normalise

    def counts(self, target: Tensor) -> Tensor:
        return count(~target.isnan().any(1))

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        prediction, target, labelled = _labelled(prediction, target)
        found = F.normalize(prediction, dim=1) if self.normalise else prediction
        one_minus = labelled.squeeze(1) - (found * target).sum(1)
        return share(one_minus.sum(), counts[0])


class NormalL1(Loss):
    """(1/N) sum over labelled components of |n' - n|, with n' = prediction / |prediction| (the survey's code)."""

    def counts(self, target: Tensor) -> Tensor:
        return 3 * count(~target.isnan().any(1))

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        prediction, target, labelled = _labelled(prediction, target)
        return share(((F.normalize(prediction, dim=1) - target).abs() * labelled).sum(), counts[0])


def _labelled(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both with something harmless where there is no label, and where there is one [B, 1, H, W], 0 and 1."""
    labelled = ~target.isnan().any(1, keepdim=True)
    prediction = torch.where(labelled, prediction, torch.ones_like(prediction))
    target = torch.where(labelled, target, torch.zeros_like(target)).to(prediction.dtype)
    return prediction, target, labelled.to(prediction.dtype)
