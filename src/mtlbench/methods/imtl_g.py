"""IMTL-G: the gradient balance of impartial multi-task learning (Liu et al., ICLR 2021)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting

TOLERANCE = 1e-12
"""Eigenvalues of the cosine matrix below this share of the largest are zero."""


class IMTLG(Weighting):
    """Weights alpha of sum 1 for which g = sum_t alpha_t g_t has equal projections g u_t' onto all u_t = g_t / |g_t|.

    Closed form alpha_{2:T} = g_1 U' (D U')^-1 (Liu et al. 2021, Eq. 2, derived in Eqs. 9-12). With the cosines
    K = [u_t u_s'] it reads K beta = const, alpha_t = beta_t / |g_t|, scaled to sum 1: only K is inverted, so the
    gradients' lengths do not harm the solution. Weights may be negative (the paper saw none, Section 4).

    Level: feature (the paper's Algorithm 1) or parameter ("exact" in its Table 1). Touches shared parameters.
    Sum of weights: 1. Invariance to the losses' scales: of the direction of g (Theorem 2), not of its length. Where
    scaling turns the sign of the sum in Theorem 2's lambda = 1 / sum_t alpha_t / k_t, the weights of sum 1 point the
    other way, uphill; this is the paper's formula, taken as it is. One task: its plain gradient. A zero gradient has
    no direction: weight 0, the others as if they were alone; all zero: weights 1/T.

    Where the closed form has no or many solutions:
    - parallel gradients: the beta of least norm, so that tasks with the same direction have the same share of g;
    - equal projections only at g = 0 (opposite gradients, or too many for their space): weights of sum 1 with g = 0;
    - no weights of sum 1 exist (D U' singular): those of sum |alpha_t| = 1 with a positive projection.
    """

    levels: ClassVar[tuple[Level, ...]] = ("feature", "parameter")

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        norms = gramian.diagonal().sqrt()
        alive = norms > 0
        if not alive.any():
            return torch.full_like(norms, 1 / len(norms))
        alpha = torch.zeros_like(norms)
        inverse = 1 / norms[alive]
        beta = equal_projections(gramian[alive][:, alive] * inverse * inverse[:, None])
        weights = beta * (inverse / inverse.max())
        total, most = weights.sum(), weights.abs().sum()
        alpha[alive] = weights / (total if total.abs() > TOLERANCE * most else most)
        return alpha


def equal_projections(cosines: Tensor) -> Tensor:
    """beta [T] of least norm with K beta = 1, or, where only K beta = 0 has equal entries, such a beta."""
    values, vectors = torch.linalg.eigh(cosines)
    null = values <= TOLERANCE * values[-1]
    ones = vectors.sum(0)  # the vector of ones in K's eigenvectors
    if ones[null].square().sum() > TOLERANCE * len(ones):
        return vectors[:, null] @ ones[null]
    return vectors[:, ~null] @ (ones[~null] / values[~null])
