"""MGDA without the condition that weights are positive (Liu et al., ICLR 2021, Appendix C.2)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.weighting import Level, Weighting

TOLERANCE = 1e-12
"""Eigenvalues of the cosine matrix below this share of the largest are zero."""


class MGDARelaxed(Weighting):
    """Weights alpha of sum 1, of any sign, for which |sum_t alpha_t g_t| is least.

    alpha_{2:T} = g_1 D' (D D')^-1 with the rows g_1 - g_t of D (Liu et al. 2021, Eq. 7 and Appendix C.2), which
    reads G alpha = const. Solved for beta_t = alpha_t |g_t| and the cosines K: K beta = const / |g_t|. Where K is
    singular: the beta of least norm; where some weights of sum 1 give g = 0, the least norm among those, noted as
    "a stationary point of the affine hull".

    Level: feature (the paper's experiments) or parameter. Touches shared parameters. Sum of weights: 1. Invariance to
    the losses' scales: none; small gradients get large weights, as with MGDA, whose weights these are wherever all
    are positive. All projections g g_t' are equal. One task: its plain gradient. A zero gradient has all the weight
    (several of them alike): the zero step, as with MGDA.
    """

    levels: ClassVar[tuple[Level, ...]] = ("feature", "parameter")

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        lengths, alive, cosines = lengths_and_cosines(gramian)
        if not alive.all():
            return torch.from_numpy(~alive / (~alive).sum())
        relative = lengths.min() / lengths  # sum_t alpha_t = 1 reads relative @ beta = 1
        beta, zero = affine_minimum(cosines, relative)
        if zero:
            self.note("a stationary point of the affine hull")
        alpha = beta * relative
        return torch.from_numpy(alpha / alpha.sum())


def affine_minimum(cosines: np.ndarray, relative: np.ndarray) -> tuple[np.ndarray, bool]:
    """beta [T] with relative @ beta = 1 that minimises beta' K beta, and whether that minimum is 0."""
    values, vectors = np.linalg.eigh(cosines)
    null = values <= TOLERANCE * values[-1]
    along = vectors.T @ relative
    if along[null] @ along[null] > TOLERANCE * (along @ along):
        return vectors[:, null] @ along[null] / (along[null] @ along[null]), True
    parts = along[~null] / values[~null]
    return vectors[:, ~null] @ parts / (parts @ along[~null]), False
