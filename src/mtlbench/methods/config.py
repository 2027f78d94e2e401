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

    d = U^+ 1 with the unit gradients U; g = (sum_t g_t d' / |d|) d / |d| (arXiv 2408.11104, Eqs. 2 and 3). With the
    cosines K = U U' it is d = beta U, beta = K^+ 1, so the Gramian suffices; the authors' code takes the
    pseudo-inverse of U.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: what the projections make it;
    without conflict, for orthogonal gradients of one length, 1. The direction is IMTL-G's where cosines can be equal
    and its weights sum to a positive number. Invariance to the losses' scales: of the direction, not of the length.
    One task: its plain gradient. A zero gradient has no direction: weight 0, the others as if they were alone.
    Where no direction has equal cosines (dependent gradients) the least squares of the pseudo-inverse answer; where
    that is zero (opposite gradients) the zero step, noted as "no common direction".
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        norms = gramian.diagonal().sqrt()
        alive = norms > 0
        weights = torch.zeros_like(norms)
        if not alive.any():
            return weights
        lengths = norms[alive]
        cosines = gramian[alive][:, alive] / lengths / lengths[:, None]
        values, vectors = torch.linalg.eigh(cosines)
        there = values > TOLERANCE * values[-1]
        ones = vectors.sum(0)
        beta = vectors[:, there] @ (ones[there] / values[there])
        square = (ones[there].square() / values[there]).sum()  # |d|^2
        if ones[there].square().sum() <= TOLERANCE * len(ones):
            self.note("no common direction")
            return weights
        projections = vectors[:, there] @ ones[there]  # of the unit gradients, times |d|
        weights[alive] = (lengths @ projections) / square * beta / lengths
        return weights
