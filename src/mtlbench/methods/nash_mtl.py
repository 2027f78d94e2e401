"""Nash-MTL: multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.fairgrad import check_max_norm, clipped, fair_weights
from mtlbench.weighting import Level, Touches, Weighting, check_above, check_option

GAP = 1e-10
"""How far from its minimum a convex programme may be left, relative to the minimum."""


class NashMTL(Weighting):
    """The Nash bargaining solution of the tasks: G alpha = 1 / alpha, alpha > 0 (Navon et al. 2022, Claim 3.1, Eq. 3).

    solver: exact solves the equation to rounding, by Newton's method on the convex alpha' G alpha / 2 - sum log alpha;
        ccp is the paper's Section 3.2: convex programmes min sum_t (G alpha)_t + the linearised sum_t phi_t(alpha),
        phi_t = log alpha_t + log (G alpha)_t >= 0, each from the last solution, and the first from the last step's
        weights (1 at the start). As in the authors' code it ends where a programme moves alpha by less than 1e-6 or
        G alpha / |G| is within 1e-3 of 1 / alpha, and keeps the alpha before that programme; the code's division of G
        by its norm changes nothing else.
    iterations: programmes of ccp at most (20 in the authors' code).
    update_weights_every: steps between solutions; the weights stay in between, while the same tasks are present (the
        paper's speed-up, Section 5; the authors' code has 1).
    max_norm: the result's length |alpha J| is clipped to it (1.0 in the authors' code; the paper says nothing); null:
        it is sqrt(T), whatever the losses. At level feature it is the length of the gradient at z.
    touches: shared as in the paper; everything as in the authors' code, which weighs the heads' losses too (but clips
        only the shared gradient).

    Level: parameter (the paper) or feature. Touches shared parameters, or everything by option. Sum of weights: sum
    1 / (g_t g'), large for small gradients, before clipping. Invariance to the losses' scales: the result is invariant
    (with ccp as far as its early stop allows). One task: 1 / |g| times its gradient. A zero gradient has no part in the
    game: weight 0, the others as if alone. Where a convex combination of unit gradients is zero (opposite gradients,
    stationary points) there is no solution: the zero step, noted as "no bargaining solution" (the authors' code keeps
    the last weights without a word).
    Where gradients' lengths are too far apart for ccp in float64, its programmes end at a point that obeys their
    constraints, noted as "a convex programme that rounding stops".
    Raises ValueError for an unknown option, iterations or update_weights_every < 1, or max_norm <= 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        solver: str = "exact",
        iterations: int = 20,
        update_weights_every: int = 1,
        max_norm: float | None = None,
        touches: Touches = "shared",
    ):
        super().__init__(tasks, level)
        check_option(NashMTL, "solver", solver, ("exact", "ccp"))
        check_option(NashMTL, "touches", touches, ("shared", "everything"))
        check_above(NashMTL, "iterations", iterations, 0)
        check_above(NashMTL, "update_weights_every", update_weights_every, 0)
        check_max_norm(NashMTL, max_norm)
        self.solver, self.iterations, self.max_norm, self.touches = solver, math.ceil(iterations), max_norm, touches
        self.every = math.ceil(update_weights_every)
        if solver == "ccp" or self.every > 1:  # otherwise a step leaves nothing for the next
            self.register_buffer("last", torch.ones(len(self.tasks), dtype=torch.float64))
            self.register_buffer("solved_for", torch.zeros(len(self.tasks), dtype=torch.bool))
            self.register_buffer("age", torch.zeros((), dtype=torch.int64))

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        if self.solver == "exact" and self.every == 1:
            return clipped(self._solution(gramian, None), gramian, self.max_norm)
        at = self.positions(tasks)
        same = self.solved_for.nonzero().flatten().tolist() == sorted(at)
        if self.age % self.every == 0 or not same:
            self.last[at] = self._solution(gramian, self.last[at])
            self.solved_for.zero_()
            self.solved_for[at] = True
            self.age.zero_()
        self.age += 1
        return clipped(self.last[at], gramian, self.max_norm)

    def _solution(self, gramian: Tensor, last: Tensor | None) -> Tensor:
        exact = fair_weights(gramian, 1.0)
        if exact is None:
            self.note("no bargaining solution")
            return torch.zeros(len(gramian), dtype=torch.float64)
        if self.solver == "exact" or last is None or not exact.any():
            return torch.from_numpy(exact)
        start = last.where(last > 0, 1.0).numpy()  # a task that had no part in the game begins anew
        found, solved = concave_convex(gramian, start, exact, self.iterations)
        if not solved:
            self.note("a convex programme that rounding stops")
        return torch.from_numpy(found)


def concave_convex(gramian: Tensor, start: np.ndarray, exact: np.ndarray, iterations: int) -> tuple[np.ndarray, bool]:
    """alpha [T] after the convex programmes from `start`, 0 for zero gradients; whether all of them were solved.

    In y = alpha |g| all but the sum of G alpha depends on the cosines K alone. The exact solution times 1.5 lies inside
    all constraints: there each programme's search begins.
    """
    lengths, alive, cosines = lengths_and_cosines(gramian)
    lengths, inner = lengths[alive], gramian.numpy()[np.ix_(alive, alive)]
    total = cosines @ lengths  # of the sum of G alpha in y
    inside = 1.5 * exact[alive] * lengths
    alpha, everything = start[alive], True
    for _ in range(iterations):
        y = alpha * lengths
        products = cosines @ y
        slope = total + 1 / y + cosines @ (1 / products) if (products > 0).all() else total  # phi has no slope there
        y, solved = programme(cosines, slope, inside)
        now = y / lengths
        everything = everything and solved
        far = np.linalg.norm(inner / np.linalg.norm(inner) @ alpha - 1 / (alpha + 1e-10))
        if far < 1e-3 or np.linalg.norm(now - alpha) < 1e-6:
            break
        alpha = now
    weights = np.zeros(len(alive))
    weights[alive] = alpha
    return weights, everything


def programme(cosines: np.ndarray, slope: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, bool]:
    """y > 0 [T] with y_t (K y)_t >= 1 for all t that minimises slope @ y, by an interior-point method from `inside`.

    False beside it: slopes too far apart for float64, so that y obeys the constraints but is not yet the minimum.
    """
    y = inside
    sharpness = len(y) / (slope @ y)
    while 2 * len(y) / sharpness > GAP * (slope @ y):
        sharpness *= 10
        for _ in range(50):
            products = cosines @ y
            room = y * products - 1
            rows = (np.diag(products) + y[:, None] * cosines) / room[:, None]
            gradient = sharpness * slope - rows.sum(0)
            hessian = rows.T @ rows - cosines / room[:, None] - cosines / room
            size = 1 / np.sqrt(np.diagonal(hessian))
            try:
                step = -size * np.linalg.solve(hessian * size * size[:, None], size * gradient)
            except np.linalg.LinAlgError:
                return y, False
            decrease = -gradient @ step
            if not np.isfinite(decrease):
                return y, False
            if decrease <= 1e-9:
                break
            y = _inside(cosines, y, step, 1 / (1 + math.sqrt(decrease)))
    return y, True


def _inside(cosines: np.ndarray, y: np.ndarray, step: np.ndarray, share: float) -> np.ndarray:
    """y after the share of a Newton step by which a self-concordant function falls; less, where rounding needs it."""
    while share > 1e-12:
        there = y + share * step
        if (there > 0).all() and (there * (cosines @ there) > 1).all():
            return there
        share /= 2
    return y
