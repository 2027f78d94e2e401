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

ROUNDS, PATIENCE = 1000, 5
"""Newton's steps at most, and how many of them may leave the equation's error as it is before only rounding is left."""

ROUNDING = 2e-16
"""Relative error of the equation that is none."""

LEAST = 1e-290
"""A task's share of the result that underflow would make 0: a large alpha weighs a long gradient by less than that."""


class FairGrad(Weighting):
    """The update whose first-order improvements of the tasks are alpha-fair: G w = w^(-1/alpha), w > 0.

    (Ban & Ji 2024, Eq. 7; alpha = 1 is proportional fairness, Nash-MTL's equation; alpha to infinity max-min.) Solved
    to rounding by Newton's method on the convex function whose gradient the equation is; the authors' code calls a
    least-squares solver.

    max_norm: the result's length |w J| is clipped to it (1.0 in the authors' code, after a multiplication by T that
        this clipping takes back; the paper says nothing); null: as the equation has it.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: what the equation makes it; a
    task's gradient k times as long has, alone, a weight k^(-2 alpha / (alpha + 1)) times as large. Invariance to the
    losses' scales: none but for alpha = 1, where the result is invariant. One task: |g|^(-2 alpha / (alpha + 1)) times
    its gradient. A zero gradient has no solution of its own: weight 0, the others as if alone. Where a convex
    combination of unit gradients is zero (opposite gradients, stationary points) there is no solution: the zero step,
    noted as "no fair direction". Raises ValueError for alpha <= 0 or max_norm <= 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self, tasks: Sequence[str], level: Level | None = None, alpha: float = 2.0, max_norm: float | None = None
    ):
        super().__init__(tasks, level)
        check_above(FairGrad, "alpha", alpha, 0)
        check_max_norm(FairGrad, max_norm)
        self.alpha, self.max_norm = float(alpha), max_norm

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        found = fair_weights(gramian, self.alpha)
        if found is None:
            self.note("no fair direction")
            return torch.zeros_like(losses)
        return clipped(torch.from_numpy(found), gramian, self.max_norm)


def check_max_norm(method: type[Weighting], max_norm: float | None) -> None:
    """Raises ValueError unless max_norm is None or a finite number above 0."""
    if max_norm is not None:
        check_above(method, "max_norm", max_norm, 0)


def clipped(weights: Tensor, gramian: Tensor, max_norm: float | None) -> Tensor:
    """The weights [T], shortened so that the length of the weighted sum of gradients is at most max_norm."""
    length = (weights @ gramian @ weights).clamp(min=0).sqrt().item()
    return weights * (max_norm / length) if max_norm is not None and length > max_norm else weights.clone()


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
    """x > 0 with K x = q x^-power: the minimum of x'Kx / 2 - sum q x^(1-power) / (1-power), or log x for power 1.

    Newton's steps on that convex function change no x by more than a share 1 / (1 + power), within which its curvature
    stays alike, so that each of them lowers it, whatever the sizes of x. Where they halve the equation's error,
    Newton's steps on log(K x) + power log x = log q, nearly linear for an x next to nothing, lead there sooner.
    """

    def error(x: np.ndarray) -> float:
        right = q * x**-power
        return float((np.abs(cosines @ x - right) / (np.abs(cosines) @ x + right)).max())

    x = q ** (1 / (1 + power))  # the solution for orthogonal gradients
    best, least, stale = x, error(x), 0
    for _ in range(ROUNDS):
        slope = x * (cosines @ x) - q * x ** (1 - power)
        change = _scaled_solve(x[:, None] * cosines * x + np.diag(power * q * x ** (1 - power)), -slope)
        reach = (1 + power) * np.abs(change).max()
        x = np.maximum(x * (1 + change / max(reach, 1.0)), LEAST)
        now, products = error(x), cosines @ x
        if (products > 0).all():
            bend = cosines * x / products[:, None] + np.diag(np.full(len(x), power))
            there = np.exp(-np.clip(np.linalg.solve(bend, np.log(products / q) + power * np.log(x)), -50, 50))
            there = np.maximum(x * there, LEAST)
            if (sooner := error(there)) <= now / 2:
                x, now = there, sooner
        stale = 0 if now < least or reach > 1 else stale + 1
        if now < least:
            best, least = x, now
        if least <= ROUNDING or stale > PATIENCE:
            break
    return best


def _scaled_solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution of a symmetric positive definite system, each unknown in the unit that makes its diagonal 1."""
    unit = 1 / np.sqrt(np.diagonal(matrix))
    return unit * np.linalg.solve(matrix * unit * unit[:, None], unit * right)
