"""MGDA and MGDA-UB (Sener and Koltun, NeurIPS 2018)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.weighting import Level, Touches, Weighting, check_above, check_option


class MGDA(Weighting):
    """Convex weights alpha for which |sum_t alpha_t g_t| is least (Sener & Koltun 2018, Eq. 3).

    level: feature is MGDA-UB (Section 3.3), parameter MGDA.
    solver: exact finds the minimum to rounding, by Wolfe's active-set algorithm, and with two tasks by Eq. 4;
        frank_wolfe is the paper's Algorithm 2: from 1/T, at most `iterations` steps, until a step is <= `stop`
        (the authors' code: 250 and 1e-5, started from the best pair of tasks and never quite at a vertex).
    normalize: the gradients are divided, before the problem is solved, by 1 (none), |g_t| (l2), L_t (loss) or
        L_t |g_t| (loss+): in the authors' code, not in the paper. As in the code, the weights then multiply the
        gradients as they were. In a hybrid L_t is the balanced loss.
    touches: shared as in Algorithm 2; everything as in the authors' code, which weighs the heads' losses too.

    Level: feature or parameter. Touches shared parameters, or everything by option. Sum of weights: 1.
    Invariance to the losses' scales: none (of alpha alone with l2 and loss). Small gradients
    get large weights. One task: its plain gradient. A zero gradient: the zero step, all weight on it (on several
    of them alike). Where several alpha give the minimum, one of them.
    Raises ValueError for an unknown option, iterations <= 0, stop <= 0, or a negative loss with normalize=loss.
    """

    levels: ClassVar[tuple[Level, ...]] = ("feature", "parameter")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        solver: str = "exact",
        normalize: str = "none",
        touches: Touches = "shared",
        iterations: int = 250,
        stop: float = 1e-5,
    ):
        super().__init__(tasks, level)
        check_option(MGDA, "solver", solver, ("exact", "frank_wolfe"))
        check_option(MGDA, "normalize", normalize, ("none", "l2", "loss", "loss+"))
        check_option(MGDA, "touches", touches, ("shared", "everything"))
        check_above(MGDA, "iterations", iterations, 0)
        check_above(MGDA, "stop", stop, 0)
        self.solver, self.normalize, self.touches = solver, normalize, touches
        self.iterations, self.stop = math.ceil(iterations), stop

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        divisor = torch.ones_like(losses)
        if self.normalize in ("l2", "loss+"):
            divisor *= gramian.diagonal().sqrt()
        if self.normalize in ("loss", "loss+"):
            if losses.min() < 0:
                worst = int(losses.argmin())
                raise ValueError(
                    f"method.normalize={self.normalize} divides by the losses, which must not be negative; that of "
                    f"{tasks[worst]} is {losses[worst]:.4g}. Type method.normalize=l2 or none."
                )
            divisor *= losses
        factor = torch.where(divisor > 0, 1 / divisor, 0.0)
        scaled = (gramian * factor * factor[:, None]).numpy()
        if self.solver == "exact":
            return torch.from_numpy(minimum_norm(scaled))
        return torch.from_numpy(frank_wolfe(scaled, self.iterations, self.stop))


def between_two(aa: float, ab: float, bb: float) -> tuple[float, float]:
    """Convex weights of the shortest vector between a and b, from their inner products (Eq. 4 and Figure 1).

    The text of the paper's Algorithm 1 is garbled; the weight of a is 1 if ab >= aa, 0 if ab >= bb.
    """
    if ab >= aa:
        return 1.0, 0.0
    if ab >= bb:
        return 0.0, 1.0
    return (bb - ab) / (aa + bb - 2 * ab), (aa - ab) / (aa + bb - 2 * ab)


def frank_wolfe(gramian: np.ndarray, iterations: int, stop: float) -> np.ndarray:
    """The solver in the paper's Algorithm 2."""
    alpha = np.full(len(gramian), 1 / len(gramian))
    for _ in range(iterations):
        products = gramian @ alpha
        t = int(products.argmin())
        step, rest = between_two(gramian[t, t], products[t], alpha @ products)
        alpha *= rest
        alpha[t] += step
        if step <= stop:
            break
    return alpha


def minimum_norm(gramian: np.ndarray) -> np.ndarray:
    """Convex weights alpha [T] that minimise alpha' G alpha, to rounding (Wolfe, Mathematical Programming 1976).

    Solved for beta_t = alpha_t |g_t| and the matrix of cosines, so that lengths many orders of magnitude apart
    do no harm. The set of tasks with weight grows by the task that is furthest from the conditions of optimality, and
    loses those whose weight would turn negative. The norm falls at every turn, so no set comes twice; where one
    does, only rounding is left, and the minimum is reached.
    """
    norms = np.sqrt(np.diagonal(gramian))
    if not norms.all():
        return (norms == 0) / (norms == 0).sum()
    if len(gramian) == 2:
        return np.array(between_two(gramian[0, 0], gramian[0, 1], gramian[1, 1]))
    cosines = gramian / norms / norms[:, None]
    relative = norms.min() / norms  # sum_t alpha_t = 1 reads relative @ beta = 1
    beta = np.zeros_like(norms)
    beta[norms.argmin()] = 1.0
    seen: set[bytes] = set()
    while (support := (beta > 0).tobytes()) not in seen:
        seen.add(support)
        products = cosines @ beta
        slack = products - (beta @ products) * relative  # at the minimum >= 0, and 0 where there is weight
        t = int(slack.argmin())
        if beta[t] > 0 or slack[t] >= -np.finfo(float).eps * beta.sum():
            break
        beta = _grow(cosines, relative, beta, t)
    alpha = beta * relative
    return alpha / alpha.sum()


def _grow(cosines: np.ndarray, relative: np.ndarray, beta: np.ndarray, t: int) -> np.ndarray:
    """From beta towards the affine minimum of its tasks and t; a task whose weight gets to 0 is dropped."""
    beta, active = beta.copy(), beta > 0
    active[t] = True
    while True:
        target = np.zeros_like(beta)
        target[active] = _affine_minimum(cosines[np.ix_(active, active)], relative[active])
        falling = np.flatnonzero(active & (target <= 0))
        if not len(falling):
            return target
        reach = beta[falling] / np.maximum(beta[falling] - target[falling], np.finfo(float).tiny)
        beta += reach.min() * (target - beta)
        dropped = falling[reach.argmin()]
        active[dropped], beta[dropped] = False, 0.0


def _affine_minimum(cosines: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """beta with relative @ beta = 1 that minimises beta' K beta, of any sign."""
    size = len(relative)
    system = np.zeros((size + 1, size + 1))
    system[:size, :size], system[:size, size] = cosines, relative
    system[size, :size] = relative
    right = np.eye(size + 1)[size]
    try:
        return np.linalg.solve(system, right)[:size]
    except np.linalg.LinAlgError:  # dependent to rounding: many solutions, of which the shortest
        return np.linalg.lstsq(system, right)[0][:size]
