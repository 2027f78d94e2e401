"""CAGrad: conflict-averse gradient descent (Liu et al., NeurIPS 2021)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.mgda import minimum_norm
from mtlbench.weighting import Level, Weighting, check_between, check_option

ROUNDS = 100
"""Of the search for |g_w|, at most; a handful is what it takes."""

STATIONARY = 1e-12
"""Squared length of the shortest convex combination of unit gradients below which it is zero."""


class CAGrad(Weighting):
    """The update d within c |g_0| of the average gradient g_0 that improves the worst task most.

    max_d min_t g_t d'  so that  |d - g_0| <= c |g_0|                          (Liu et al. 2021, Eq. 1)
    d = g_0 + sqrt(phi) g_w / |g_w|,  phi = c^2 |g_0|^2                        (Algorithm 1)
    w = argmin over convex weights of  g_w g_0' + sqrt(phi) |g_w|              (Eq. 3)

    The dual is solved to rounding: for a given length |g_w| it is a minimum-norm problem, and on the set of tasks with
    weight the length has a closed form.

    c: 0 is the average gradient; convergence is shown for c < 1 (Theorem 3.2); larger c tends to MGDA's direction.
    rescale: none is the paper's d; the authors' code divides it by 1 + c^2 (square, its default) or 1 + c (linear).
    reduction: mean is the paper's g_0; sum multiplies d by T (the authors' code does so before the update).

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: 1 + c |g_0| / |g_w| (times T for
    reduction=sum). Invariance to the losses' scales: none. One task: (1 + c) times its gradient, once it
    with rescale=linear. A zero gradient takes all the weight of the dual, g_w = 0. Where g_w = 0 (a
    zero gradient, opposite gradients, Pareto stationary points) no direction improves every task: the average
    gradient, noted as "no direction improves all tasks".
    Raises ValueError for c < 0 or an unknown option.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        c: float = 0.4,
        rescale: str = "none",
        reduction: str = "mean",
    ):
        super().__init__(tasks, level)
        check_between(CAGrad, "c", c, 0, math.inf)
        check_option(CAGrad, "rescale", rescale, ("none", "square", "linear"))
        check_option(CAGrad, "reduction", reduction, ("mean", "sum"))
        self.c, self.reduction = c, reduction
        self.divisor = {"none": 1.0, "square": 1 + c**2, "linear": 1 + c}[rescale]

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        inner = gramian.numpy()
        count = len(inner)
        average = np.full(count, 1 / count)
        weights = average
        lengths, alive, cosines = lengths_and_cosines(gramian)
        shortest = minimum_norm(cosines) if alive.all() else None
        if shortest is None or shortest @ cosines @ shortest <= STATIONARY:
            self.note("no direction improves all tasks")
        elif self.c > 0:
            radius = self.c * math.sqrt(average @ inner @ average)
            w = conflict_averse(inner / lengths.max() ** 2, radius / lengths.max())
            weights = average + radius / math.sqrt(w @ inner @ w) * w
        factor = count if self.reduction == "sum" else 1
        return torch.from_numpy(weights * (factor / self.divisor))


def conflict_averse(inner: np.ndarray, radius: float) -> np.ndarray:
    """Convex weights w [T] that minimise g_w g_0' + radius |g_w|, of gradients whose hull does not hold 0.

    With |g_w| <= (|g_w|^2 / s + s) / 2 the minimum over w for a given s is that of |g_w + (s / radius) g_0|: a
    minimum-norm problem whose points are shifted, and at the solution s = |g_w|. Its set of tasks with weight gives s
    in closed form; an interval that holds s guards the steps from set to set.
    """
    products = inner.mean(1)  # of g_0 with each
    square = products.mean()
    shortest = minimum_norm(inner)
    s = math.sqrt(shortest @ inner @ shortest)
    low, high = 0.0, 1.0  # in units of the longest gradient
    best, least = shortest, math.inf
    for _ in range(ROUNDS):
        shift = s / radius
        w = minimum_norm(inner + shift * (products + products[:, None]) + shift**2 * square)
        length = math.sqrt(w @ inner @ w)
        low, high = (s, high) if length > s else (low, s)
        exact, proposal = on_support(inner, products, radius, w > 0)
        for candidate in (w, exact):
            if candidate is not None:
                value = candidate @ products + radius * math.sqrt(candidate @ inner @ candidate)
                if value < least:
                    best, least = candidate, value
        if exact is not None and _is_optimal(inner, products, radius, exact):
            return exact
        if high - low <= 1e-15 * high:
            break
        s = proposal if low < proposal < high else (low + high) / 2
    return best


def _is_optimal(inner: np.ndarray, products: np.ndarray, radius: float, w: np.ndarray) -> bool:
    """Whether no task's slope is below the common one of the tasks with weight, to rounding."""
    turned = radius / math.sqrt(w @ inner @ w) * (inner @ w)
    slopes = products + turned
    return bool((slopes - w @ slopes).min() >= -1e-13 * (np.abs(products) + np.abs(turned)).max())


def on_support(
    inner: np.ndarray, products: np.ndarray, radius: float, support: np.ndarray
) -> tuple[np.ndarray | None, float]:
    """The minimum over weights of sum 1 on a set of tasks, None if not all are positive, and its |g_w| (nan if none).

    Stationary: products + (radius / s) G w = nu on the set, so w = (s / radius) G^-1 (nu - products); sum w = 1 and
    w' G w = s^2 give nu and s. Solved for lengths apart from directions, as the cosines are what is well conditioned.
    """
    lengths = np.sqrt(np.diagonal(inner)[support])
    cosines = inner[np.ix_(support, support)] / lengths / lengths[:, None]
    right = np.stack([1 / lengths, products[support] / lengths], 1)
    try:
        ones, others = (np.linalg.solve(cosines, right) / lengths[:, None]).T
    except np.linalg.LinAlgError:
        return None, math.nan
    a, b, c = ones.sum(), others.sum(), others @ products[support]
    root = b * b - a * (c - radius**2)
    if not (a > 0 and root > 0):
        return None, math.nan
    s = radius / math.sqrt(root)
    w = np.zeros(len(inner))
    w[support] = (s / radius) * ((b + math.sqrt(root)) / a * ones - others)
    if not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        return None, s
    return w / w.sum(), s
