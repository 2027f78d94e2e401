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
"""Of the search for the worst improvement, at most; a handful is what it takes."""

STATIONARY = 1e-12
"""Squared length of the shortest convex combination of unit gradients below which it is zero; so is a g_0 whose square
is below this share of the gradients' squared mean length."""


class CAGrad(Weighting):
    """The update d within c |g_0| of the average gradient g_0 that improves the worst task most.

    max_d min_t g_t d'  so that  |d - g_0| <= c |g_0|                          (Liu et al. 2021, Eq. 1)
    d = g_0 + sqrt(phi) g_w / |g_w|,  phi = c^2 |g_0|^2                        (Algorithm 1)
    w = argmin over convex weights of  g_w g_0' + sqrt(phi) |g_w|              (Eq. 3)

    Solved to rounding: the nearest point to g_0 where no task improves by less than v is a small problem of
    non-negative least squares; on its set of tasks with weight the v at which it is sqrt(phi) away has a closed form.

    c: 0 is the average gradient; convergence is shown for c < 1 (Theorem 3.2); larger c tends to MGDA's direction.
    rescale: none is the paper's d; the authors' code divides it by 1 + c^2 (square, its default) or 1 + c (linear).
    reduction: mean is the paper's g_0; sum multiplies d by T (the authors' code does so before the update).

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: 1 + c |g_0| / |g_w| (times T for
    reduction=sum). Invariance to the losses' scales: none. One task: (1 + c) times its gradient, once it
    with rescale=linear. A zero gradient cannot improve, so d leaves g_0 only until no task gets worse. The same holds
    where no direction improves every task (opposite gradients, Pareto stationary points): if a d within c |g_0| worsens
    none, the dual has g_w = 0 and the formula is 0 / 0; it is then the nearest such d to g_0, the limit of smaller c,
    noted as "no direction improves all tasks". Gradients of sum zero: d = 0, noted as "a zero average gradient".
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
        self.c, self.reduction = float(c), reduction
        self.divisor = {"none": 1.0, "square": 1 + c**2, "linear": 1 + c}[rescale]

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        inner = gramian.numpy()
        lengths, alive, cosines = lengths_and_cosines(gramian)
        weights = np.full(len(inner), 1 / len(inner))
        square = inner.mean()
        if square <= STATIONARY * lengths.mean() ** 2:
            self.note("a zero average gradient")
        elif self.c > 0:
            length = math.sqrt(square)  # of g_0, the unit of what follows
            relative = lengths[alive].min() / lengths[alive]
            products = inner.mean(1)[alive] / lengths[alive] / length
            parts, stuck = away(cosines, relative, products, self.c, movable=bool(alive.all()))
            weights[alive] += parts * length / lengths[alive]
            if stuck:
                self.note("no direction improves all tasks")
        return torch.from_numpy(weights * ((len(inner) if self.reduction == "sum" else 1) / self.divisor))


def away(
    cosines: np.ndarray, relative: np.ndarray, products: np.ndarray, radius: float, movable: bool
) -> tuple[np.ndarray, bool]:
    """eta >= 0 [T] so that g_0 + sum_t eta_t u_t improves the worst task most, and whether it is nearer to g_0 than the
    radius, because nothing better is further away.

    With unit gradients u_t: the point nearest to g_0 where u_t d' >= v r_t for all t solves K eta + q - v r >= 0, with
    equality where eta > 0. Its distance grows with v from 0 at v = min_t q_t / r_t; that of one task alone bounds v.
    v > 0 exists only if no convex combination of gradients is zero.

    cosines: K [T, T]; relative: r, the least length by each; products: q, of g_0 with u_t; the unit is |g_0|.
    movable: False if there is a zero gradient besides.
    """
    low, high = (products / relative).min(), ((products + radius) / relative).min()
    if movable and high > 0 >= low:
        shortest = minimum_norm(cosines)
        movable = shortest @ cosines @ shortest > STATIONARY
    high = high if movable else min(high, 0.0)
    v = high
    if v <= low:
        return np.zeros_like(products), True
    eta, before = np.zeros_like(products), None
    for _ in range(ROUNDS):
        # a slack of more than the radius is out of reach, and would hide the others by its size
        eta = _nearest(cosines, np.minimum(products - v * relative, 2 * radius), eta)
        distance = math.sqrt(eta @ cosines @ eta)
        if v == 0 == high and not movable and distance <= radius:
            return eta, True
        low, high = (low, v) if distance > radius else (v, high)
        support = eta > 0
        exact = _on_support(cosines, relative, products, radius, support)
        if (before is not None and (support == before).all()) or high - low <= 1e-15 * max(abs(low), abs(high)):
            break
        before = support if low < exact < high else None
        v = exact if low < exact < high else (low + high) / 2
    return eta, False


def _on_support(
    cosines: np.ndarray, relative: np.ndarray, products: np.ndarray, radius: float, support: np.ndarray
) -> float:
    """The larger v at which eta = K^-1 (v r - q) on the support is as long as the radius; nan if there is none."""
    if not support.any():
        return math.nan
    both = np.stack([relative[support], products[support]], 1)
    try:
        (rr, rq), (_, qq) = both.T @ np.linalg.solve(cosines[np.ix_(support, support)], both)
    except np.linalg.LinAlgError:
        return math.nan
    root = rq**2 - rr * (qq - radius**2)
    return (rq + math.sqrt(root)) / rr if root >= 0 and rr > 0 else math.nan


def _nearest(cosines: np.ndarray, slack: np.ndarray, start: np.ndarray) -> np.ndarray:
    """eta >= 0 [T] with K eta + slack >= 0, equal where eta > 0, by active sets (Lawson and Hanson 1974, Chapter 23).

    Slacks need not be those of one point, so a task may be asked for whose u_t depends on those of the set: then it
    takes the place of one of them. The objective falls at every turn; where a set comes twice, only rounding is left.
    """
    eta = _within(cosines, slack, start, start > 0)
    rounding = 4 * np.finfo(float).eps
    seen: set[bytes] = set()
    while (support := (eta > 0)).tobytes() not in seen:
        seen.add(support.tobytes())
        rest = np.where(support, 0.0, cosines @ eta + slack)
        t = int(rest.argmin())
        if rest[t] >= -rounding * (eta.sum() + np.abs(slack).max()):
            break
        share = np.zeros_like(eta)  # of the set's gradients in u_t
        share[support] = np.linalg.solve(cosines[np.ix_(support, support)], cosines[support, t])
        support[t] = True
        if 1 - cosines[t] @ share <= rounding * (1 + np.abs(share).sum()) ** 2:
            taken = np.flatnonzero(share > 0)
            if not len(taken):  # a combination of sum zero: no point has these slacks
                break
            reach = eta[taken] / share[taken]
            eta = np.maximum(eta - reach.min() * share, 0.0)
            eta[t] += reach.min()
            eta[taken[reach.argmin()]], support[taken[reach.argmin()]] = 0.0, False
        eta = _within(cosines, slack, eta, support)
    return eta


def _within(cosines: np.ndarray, slack: np.ndarray, eta: np.ndarray, support: np.ndarray) -> np.ndarray:
    """From eta towards K eta + slack = 0 on the support, which loses the tasks whose eta gets to 0."""
    while True:
        target = np.zeros_like(eta)
        target[support] = np.linalg.solve(cosines[np.ix_(support, support)], -slack[support])
        falling = np.flatnonzero(support & (target <= 0))
        if not len(falling):
            return target
        reach = eta[falling] / np.maximum(eta[falling] - target[falling], np.finfo(float).tiny)
        eta = eta + reach.min() * (target - eta)
        dropped = falling[reach.argmin()]
        support[dropped], eta[dropped] = False, 0.0
