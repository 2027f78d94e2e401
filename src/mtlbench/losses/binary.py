"""Losses of yes and no: attributes, saliency, edges. The prediction is a logit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.losses.counting import count, share
from mtlbench.task import IGNORE, Loss


class BinaryCrossEntropy(Loss):
    """-(1/N) sum over labelled terms of y log sigmoid(z) + (1 - y) log(1 - sigmoid(z)).

    prediction z [B, K], target y [B, K] (or [B] for K = 1) integers 0, 1 or IGNORE = no label: CelebA's attributes,
    one task each (K = 1: IMTL, MGDA, Elich et al. 2023; their sum is the method's business) or all in one.
    `divide_by="terms"`: N counts labelled terms; `"images"`: images with any label, so that attributes are added.
    """

    def __init__(self, divide_by: str = "terms"):
        if divide_by not in ("terms", "images"):
            raise ValueError(f"Binary cross-entropy is divided by terms or images, not by {divide_by!r}.")
        self.divide_by = divide_by

    def counts(self, target: Tensor) -> Tensor:
        labelled = target != IGNORE
        return count(labelled.reshape(len(target), -1).any(1) if self.divide_by == "images" else labelled)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        labelled, terms = _terms(prediction, target)
        return share(terms.where(labelled, torch.zeros_like(terms)).sum(), counts[0])


class BalancedBinaryCrossEntropy(Loss):
    """(1/N) (w sum_{y=1} l + (1 - w) sum_{y=0} l), l as in `BinaryCrossEntropy`, N the labelled pixels.

    prediction [B, 1, H, W], target [B, H, W] or [B, 1, H, W] integers 0, 1 or IGNORE.
    positive_weight: w; null: the share of zeros among the labelled pixels of the global batch (saliency in the
        survey's code). The same code has 0.95 for edges.
    Raises ValueError for a weight outside of 0 to 1.
    """

    def __init__(self, positive_weight: float | None = None):
        if positive_weight is not None and not 0 < positive_weight < 1:
            raise ValueError(f"positive_weight={positive_weight}: between 0 and 1, or null, is expected.")
        self.positive_weight = positive_weight

    def counts(self, target: Tensor) -> Tensor:
        return torch.cat([count(target != IGNORE), count(target == 1)])

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        labelled, terms = _terms(prediction, target)
        if self.positive_weight is None:
            weight = share(counts[0] - counts[1], counts[0]).to(terms.dtype)
        else:
            weight = torch.full((), self.positive_weight, dtype=terms.dtype, device=terms.device)
        weights = torch.where(target.reshape(prediction.shape) == 1, weight, 1 - weight)
        return share((weights * terms).where(labelled, torch.zeros_like(terms)).sum(), counts[0])


def _terms(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where there is a label, and the cross-entropy of each term; of the shape of the prediction."""
    target = target.reshape(prediction.shape)
    labelled = target != IGNORE
    logits = torch.where(labelled, prediction, torch.zeros_like(prediction))
    return labelled, F.binary_cross_entropy_with_logits(logits, (target == 1).to(logits.dtype), reduction="none")
