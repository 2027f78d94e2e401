"""FairGrad (Ban and Ji, ICML 2024), and the equation that it shares with Nash-MTL."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.mgda import minimum_norm
from mtlbench.weighting import Level, Weighting, check_above

STATIONARY = 1e-12
"""Squared length of the shortest convex combination of unit gradients below which it is zero."""

ROUNDS, POLISHING = 500, 4
"""Newton's steps at most, and how many more are tried for the equation's sake."""


class FairGrad(Weighting):
    """The update whose first-order improvements of the tasks are alpha-fair: G w = w^(-1/alpha), w > 0.

    (Ban & Ji 2024, Eq. 7; alpha = 1 is proportional fairness, Nash-MTL's equation; alpha to infinity max-min.) Solved
    to rounding by Newton's method on the convex function whose gradient the equation is; the authors' code calls a
    least-squares solver.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: what the equation makes it; a
    task's gradient k times as long has, alone, a weight k^(-2 alpha / (alpha + 1)) times as large. Invariance to the
    losses' scales: none but for alpha = 1, where the result is invariant. One task: |g|^(-2 alpha / (alpha + 1)) times
    its gradient. A zero gradient has no solution of its own: weight 0, the others as if alone. Where a convex
    combination of unit gradients is zero (opposite gradients, stationary points) there is no solution: the zero step,
    noted as "no fair direction". Raises ValueError for alpha <= 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(self, tasks: Sequence[str], level: Level | None = None, alpha: float = 2.0):
        super().__init__(tasks, level)
        check_above(FairGrad, "alpha", alpha, 0)
        self.alpha = float(alpha)

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        found = fair_weights(gramian, self.alpha)
        if found is None:
            self.note("no fair direction")
            return torch.zeros_like(losses)
        return torch.from_numpy(found)


def fair_weights(gramian: Tensor, alpha: float) -> np.ndarray | None:
    """w [T] with G w = w^(-1/alpha), 0 for zero gradients; None where there is no solution."""
    lengths, alive, cosines = lengths_and_cosines(gramian)
    weights = np.zeros(len(lengths))
    if not alive.any():
        return weights
    shortest = minimum_norm(cosines)
    if shortest @ cosines @ shortest <= STATIONARY:
        return None
    # with x = w |g|: K x = q x^(-1/alpha), q = |g|^(1/alpha - 1); a common factor of q is taken out of x
    logarithms = (1 / alpha - 1) * np.log(lengths[alive])
    middle = logarithms.mean()
    x = _fair(cosines, np.exp(logarithms - middle), 1 / alpha)
    weights[alive] = x * np.exp(middle * alpha / (alpha + 1)) / lengths[alive]
    return weights


def _fair(cosines: np.ndarray, q: np.ndarray, power: float) -> np.ndarray:
    """x > 0 with K x = q x^-power: the minimum of x'Kx / 2 - sum q x^(1-power) / (1-power) (log x for power 1).

    Newton's steps are taken in log x, so that x of very different sizes are found alike; first they must lower that
    function, and where only rounding is left of it, the equation's error.
    """

    def value(x: np.ndarray) -> float:
        return x @ cosines @ x / 2 - q @ (np.log(x) if power == 1 else x ** (1 - power) / (1 - power))

    def error(x: np.ndarray) -> float:
        right = q * x**-power
        return float((np.abs(cosines @ x - right) / (np.abs(cosines) @ x + right)).max())

    def newton(x: np.ndarray) -> tuple[np.ndarray, float]:
        """The relative change of x, and the decrease that it promises."""
        slope = x * (cosines @ x) - q * x ** (1 - power)
        change = -np.linalg.solve(x[:, None] * cosines * x + np.diag(power * q * x ** (1 - power)), slope)
        return change, -change @ slope

    x = q ** (1 / (1 + power))  # the solution for orthogonal gradients
    least = value(x)
    for _ in range(ROUNDS):
        change, decrease = newton(x)
        step = min(1.0, 0.9 / max(-change.min(), 0.9))
        while step > 1e-9 and not value(x * (1 + step * change)) <= least - 1e-4 * step * decrease:
            step /= 2
        if step <= 1e-9:
            break
        x = x * (1 + step * change)
        least = value(x)
        if decrease <= 1e-28 * abs(least):
            break
    best, now = x, error(x)
    for _ in range(POLISHING):
        x = x * np.maximum(1 + newton(x)[0], 0.1)
        if error(x) < now:
            best, now = x, error(x)
    return best
