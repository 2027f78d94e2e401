"""UPGrad: unconflicting projection of gradients (Quinton and Rey 2024)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.weighting import Level, Weighting, check_option

TOLERANCE = 1e-13
"""A unit gradient's product with the projection counts as a conflict below minus this share of the vector's size."""


class UPGrad(Weighting):
    """Each gradient is projected onto the dual cone of all of them, and the projections are averaged.

    pi(g_t) = argmin |v - g_t| so that g_s v' >= 0 for all s; the update is (1/T) sum_t pi(g_t) (Quinton & Rey 2024,
    Eq. 5). By duality pi(g_t) = (e_t + z) J with z >= 0 the solution of a small quadratic programme on the Gramian
    (Proposition 1), solved to rounding by an active-set method; torchjd adds 1e-4 to a normalised Gramian's diagonal.

    reduction: mean (the paper) or sum of the projections.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: 1 (mean) or T (sum) without
    conflict, more with. No task's loss grows to first order: g_t g' >= 0 for all t. Invariance to the losses' scales:
    none, but the result is linear in them (each projection is of one task). One task: its plain gradient. A zero
    gradient takes part in no projection and has the weight 1/T (1) of what is zero. Raises ValueError for an unknown
    reduction.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(self, tasks: Sequence[str], level: Level | None = None, reduction: str = "mean"):
        super().__init__(tasks, level)
        check_option(UPGrad, "reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        lengths, alive, cosines = lengths_and_cosines(gramian)
        total = np.ones(len(lengths))
        share = lengths[alive]
        total[alive] = 0
        for t in range(len(share)):
            unit = np.eye(len(share))[t]
            total[alive] += share[t] * (unit + lifted(cosines, cosines[t])) / share
        return torch.from_numpy(total / len(total) if self.reduction == "mean" else total)


def lifted(cosines: np.ndarray, products: np.ndarray) -> np.ndarray:
    """z >= 0 [T] with K z + products >= 0 and 0 where z > 0: what must be added to a vector with these products.

    Lawson and Hanson's active-set method (Solving Least Squares Problems, 1974, Chapter 23), on inner products.
    """
    z = np.zeros(len(cosines))
    active = np.zeros(len(cosines), bool)
    refused = np.zeros(len(cosines), bool)
    bound = TOLERANCE * max(np.abs(products).max(), np.finfo(float).tiny)
    for _ in range(20 * len(cosines) + 20):
        slack = np.where(active | refused, 0.0, cosines @ z + products)
        t = int(slack.argmin())
        if slack[t] >= -bound * (1 + z.sum()):
            break
        before = z.copy(), active.copy()
        active[t] = True
        z = _within(cosines, products, z, active)
        if not active[t]:  # dependent on the others to rounding: it can lift nothing
            z, active = before
            refused[t] = True
        else:
            refused[:] = False
    return z


def _within(cosines: np.ndarray, products: np.ndarray, z: np.ndarray, active: np.ndarray) -> np.ndarray:
    """From z towards the solution on the active tasks; those whose z gets to 0 leave the set."""
    z = z.copy()
    while active.any():
        target = np.zeros_like(z)
        block = cosines[np.ix_(active, active)]
        try:
            target[active] = np.linalg.solve(block, -products[active])
        except np.linalg.LinAlgError:
            target[active] = np.linalg.lstsq(block, -products[active])[0]
        falling = np.flatnonzero(active & (target <= 0))
        if not len(falling):
            return target
        gap = z[falling] - target[falling]
        reach = np.where(gap > 0, z[falling] / np.where(gap > 0, gap, 1.0), 0.0)
        z += reach.min() * (target - z)
        dropped = falling[reach.argmin()]
        active[dropped], z[dropped] = False, 0.0
        z[~active] = 0.0
    return z
