"""ConFIG: conflict-free inverse gradients (Liu, Chu and Thuerey, ICLR 2025)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting

TOLERANCE = 1e-12
"""Eigenvalues of the cosine matrix below this share of the largest are zero."""


class ConFIG(Weighting):
    """The direction with equal cosines to all gradients, as long as the sum of their projections onto it.

    d = U^+ 1 with the unit gradients U [T, D] and their pseudo-inverse; g = (sum_t g_t d' / |d|) d / |d|
    (arXiv 2408.11104, Eqs. 2 and 3). With the cosines K = U U' it is d = beta U, beta = K^+ 1, so the Gramian suffices.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: what the projections make it;
    for orthogonal gradients of one length 1. Invariance to the losses' scales: of the direction, not of the length.
    The direction is that of IMTL-G wherever equal cosines exist and IMTL-G's weights do not point uphill. One task: its
    plain gradient. A zero gradient has no direction: weight 0, the others as if they were alone; all zero: weights 0.

    Where no direction has equal cosines (gradients that depend on each other) the pseudo-inverse gives the least
    squares of them, and its direction may conflict with some; where that is zero too (opposite gradients), the zero
    step, noted as "no common direction". What counts as dependent is decided on K, so cosines are told apart to 1e-6.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        norms = gramian.diagonal().sqrt()
        alive = norms > 0
        weights = torch.zeros_like(norms)
        if not alive.any():
            return weights
        lengths = norms[alive]
        values, vectors = torch.linalg.eigh(gramian[alive][:, alive] / lengths / lengths[:, None])
        there = values > TOLERANCE * values[-1]
        values, vectors = values[there], vectors[:, there]
        ones = vectors.sum(0)  # the vector of ones in K's eigenvectors
        if ones.square().sum() <= TOLERANCE * len(lengths):
            self.note("no common direction")
            return weights
        beta = vectors @ (ones / values)
        square = (ones.square() / values).sum()  # |d|^2
        projection = lengths @ (vectors @ ones) / square  # sum_t g_t d' / |d|^2
        weights[alive] = projection * beta / lengths
        return weights
