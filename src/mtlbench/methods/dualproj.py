"""DualProj: the projection of gradient episodic memory (Lopez-Paz and Ranzato, NeurIPS 2017)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.upgrad import checked_preferences, lifted
from mtlbench.weighting import Level, Weighting, check_option


class DualProj(Weighting):
    """The average gradient, projected onto the dual cone of all gradients.

    argmin |v - g_0| so that g_t v' >= 0 for all t, with g_0 = (1/T) sum_t p_t g_t and p_t = 1 (Lopez-Paz & Ranzato
    2017, Eqs. 8 and 11, there for the gradients of past tasks; for losses that are minimised together in Quinton & Rey
    2024, Section 5). Solved to rounding, as UPGrad; torchjd's differs from it as told there.

    preferences: p, {task: number above 0}; null is 1 for each.
    reduction: g_0 is the mean (as above) or the sum.

    Level: parameter or feature. Touches shared parameters. Sum of weights: 1 (mean) or T (sum) without conflict, more
    with; times the mean preference. No task's loss grows to first order: g_t g' >= 0 for all t. Invariance to the
    losses' scales: none. One task: its plain gradient (times p). A zero gradient takes part in no projection; its
    weight is p/T (or p) of what is zero. Raises ValueError for an unknown reduction, and for preferences that are not
    of the run's tasks or not above 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        preferences: Mapping[str, float] | None = None,
        reduction: str = "mean",
    ):
        super().__init__(tasks, level)
        check_option(DualProj, "reduction", reduction, ("mean", "sum"))
        self.preferences = checked_preferences(DualProj, preferences, self.tasks)
        self.reduction = reduction

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        lengths, alive, cosines = lengths_and_cosines(gramian)
        weights = self.preferences[self.positions(tasks)]
        if alive.any():
            share = lengths[alive] / lengths.max()
            parts = share * weights[alive]
            weights[alive] += lifted(cosines, cosines @ parts, parts.sum()) / share
        return torch.from_numpy(weights / len(weights) if self.reduction == "mean" else weights)
