"""DualProj: the projection of gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.upgrad import lifted
from mtlbench.weighting import Level, Weighting, check_option


class DualProj(Weighting):
    """The average gradient, projected onto the dual cone of all gradients.

    argmin |v - g_0| so that g_t v' >= 0 for all t (Lopez-Paz & Ranzato 2017, Eqs. 8 and 11, there for the gradients of
    past tasks; for multi-task learning in Quinton & Rey 2024, Section 5). Solved to rounding as UPGrad; torchjd adds
    1e-4 to a normalised Gramian's diagonal.

    reduction: g_0 is the mean or the sum of the gradients.

    Level: parameter or feature. Touches shared parameters. Sum of weights: 1 (mean) or T (sum) without conflict,
    more with. No task's loss grows to first order: g_t g' >= 0 for all t. Invariance to the losses' scales: none.
    One task: its plain gradient. A zero gradient takes part in no projection and has the weight 1/T (1) of what is
    zero. Raises ValueError for an unknown reduction.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(self, tasks: Sequence[str], level: Level | None = None, reduction: str = "mean"):
        super().__init__(tasks, level)
        check_option(DualProj, "reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        lengths, alive, cosines = lengths_and_cosines(gramian)
        weights = np.ones(len(lengths))
        if alive.any():
            share = lengths[alive] / lengths.max()
            weights[alive] += lifted(cosines, cosines @ share) / share
        return torch.from_numpy(weights / len(weights) if self.reduction == "mean" else weights)
