"""CAGrad: conflict-averse gradient descent (Liu et al., NeurIPS 2021)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.mgda import minimum_norm
from mtlbench.weighting import Level, Weighting, check_between, check_option

ROUNDS = 100
"""Of the search for |g_w|: every round but a few solves on the right set of tasks, the others halve an interval."""


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
    with rescale=linear. A zero gradient stays in the average and can have no share but that in g_0: the dual puts all
    its weight on it, g_w = 0. Where g_w = 0 (a zero gradient, opposite gradients, Pareto stationary points) no
    direction improves every task: the average gradient, noted as "no direction improves all tasks".
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
        radius = self.c * math.sqrt(max(average @ inner @ average, 0.0))
        weights = average
        if radius > 0:
            w = conflict_averse(inner, radius)
            if w is None:
                self.note("no direction improves all tasks")
            else:
                weights = average + radius / math.sqrt(w @ inner @ w) * w
        factor = count if self.reduction == "sum" else 1
        return torch.from_numpy(weights * (factor / self.divisor))


def conflict_averse(inner: np.ndarray, radius: float) -> np.ndarray | None:
    """Convex weights w [T] that minimise g_w g_0' + radius |g_w|, or None where g_w = 0.

    With |g_w| <= (|g_w|^2 / s + s) / 2 the minimum over w for a given s is that of |g_w + (s / radius) g_0|: a
    minimum-norm problem whose points are shifted. At the solution s = |g_w|.
    """
    scale = math.sqrt(np.diagonal(inner).max())
    inner, radius = inner / scale**2, radius / scale
    count = len(inner)
    products = inner.mean(1)  # of g_0 with each
    square = products.mean()
    shortest = minimum_norm(inner)
    if shortest @ inner @ shortest <= 1e-24:  # the gradients' hull holds 0
        return None
    low, high = 0.0, 1.0  # |g_w| is at most the longest gradient
    s = math.sqrt(shortest @ inner @ shortest)
    best, least, seen = shortest, math.inf, set()
    for _ in range(ROUNDS):
        shift = s / radius
        w = minimum_norm(inner + shift * (products + products[:, None]) + shift**2 * square)
        length = math.sqrt(max(w @ inner @ w, 0.0))
        low, high = (s, high) if length > s else (low, s)
        for candidate, value in ((w, length), polished(inner, products, radius, w > 0)):
            if candidate is not None and (found := candidate @ products + radius * value) < least:
                best, least = candidate, found
        support = (w > 0).tobytes()
        proposal = polished(inner, products, radius, w > 0)[1]
        if support in seen and low < proposal < high and abs(proposal - s) <= 1e-15 * s:
            break
        if high - low <= 1e-16 * high:
            break
        s = proposal if low < proposal < high and support not in seen else (low + high) / 2
        seen.add(support)
    return best


def polished(
    inner: np.ndarray, products: np.ndarray, radius: float, support: np.ndarray
) -> tuple[np.ndarray | None, float]:
    """The minimum over weights of sum 1 on a set of tasks, if its weights are positive, and its |g_w| (nan if none).

    Stationary: products + (radius / s) G w = nu on the set, so w = (s / radius) G^-1 (nu - products); sum w = 1 and
    w' G w = s^2 give nu and s.
    """
    part = inner[np.ix_(support, support)]
    try:
        ones, others = np.linalg.solve(part, np.stack([np.ones(len(part)), products[support]], 1)).T
    except np.linalg.LinAlgError:
        return None, math.nan
    a, b, c = ones.sum(), others.sum(), others @ products[support]
    root = b * b - a * (c - radius**2)
    if not (a > 0 and root > 0):
        return None, math.nan
    s = radius / math.sqrt(root)
    nu = (b + math.sqrt(root)) / a
    w = np.zeros(len(inner))
    w[support] = (s / radius) * (nu * ones - others)
    if not np.isfinite(w).all():
        return None, math.nan
    if (w < 0).any():
        return None, s
    return w / w.sum(), s
