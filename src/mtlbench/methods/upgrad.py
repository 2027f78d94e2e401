"""UPGrad: unconflicting projection of gradients (Quinton and Rey 2024)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.by_task import by_task
from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.weighting import Level, Weighting, check_above, check_option

TOLERANCE = 1e-13
"""A unit gradient's product with the projection counts as a conflict below minus this share of what is added up."""

PATIENCE = 3
"""Rounds in which exchanging all wrong tasks may leave as many wrong."""

LONG = 10.0
"""Multiple of what is added up beyond which z is sought task by task: it may be one of many, of dependent gradients."""


class UPGrad(Weighting):
    """Each gradient is projected onto the dual cone of all of them, and the projections are averaged.

    pi(g_t) = argmin |v - g_t| so that g_s v' >= 0 for all s; the update is (1/T) sum_t p_t pi(g_t), p_t = 1 (Quinton &
    Rey 2024, arXiv 2406.16232, Eq. 5). By duality pi(g_t) = (e_t + z) J with z >= 0 the solution of a quadratic
    programme on the Gramian (their Proposition 1), found here to rounding by an active-set method on the cosines, so
    that lengths far apart do no harm. The authors' library, torchjd, solves it after adding a small number to the
    diagonal of the Gramian divided by its trace, so its answers differ in proportion, most for short gradients.

    preferences: p, {task: number above 0}; null is 1 for each.
    reduction: mean (the paper) or sum of the projections.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: 1 (mean) or T (sum) without
    conflict, more with; times the mean preference. No task's loss grows to first order: g_t g' >= 0 for all t.
    Invariance to the losses' scales: none, but the cone has it: the part of each loss in the result grows with its
    scale alone. One task: its plain gradient (times p). A zero gradient takes part in no projection; its weight is p/T
    (or p) of what is zero. Raises ValueError for an unknown reduction, and for preferences that are not of the run's
    tasks or not above 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        preferences: Mapping[str, float] | None = None,
        reduction: str = "mean",
    ):
        super().__init__(tasks, level)
        check_option(UPGrad, "reduction", reduction, ("mean", "sum"))
        self.preferences = checked_preferences(UPGrad, preferences, self.tasks)
        self.reduction = reduction

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        lengths, alive, cosines = lengths_and_cosines(gramian)
        total = self.preferences[self.positions(tasks)]
        share = lengths[alive]
        amounts = share * total[alive]
        for amount, products in zip(amounts, cosines, strict=True):
            total[alive] += amount * lifted(cosines, products, 1.0) / share
        return torch.from_numpy(total / len(total) if self.reduction == "mean" else total)


def checked_preferences(
    method: type[Weighting], preferences: Mapping[str, float] | None, tasks: Sequence[str]
) -> np.ndarray:
    """p [T] in the order of the tasks, from {task: number above 0} or None for 1 each. Raises ValueError otherwise."""
    if preferences is not None and not isinstance(preferences, Mapping):
        example = ", ".join(f"{task}: 1" for task in tasks)
        raise ValueError(f"preferences={preferences}: {method.__name__} expects one for each task: {{{example}}}.")
    given = by_task(method, "preferences", 1.0 if preferences is None else preferences, tasks)
    for task, preference in zip(tasks, given, strict=True):
        check_above(method, f"preferences.{task}", preference, 0)
    return np.array(given, float)


def lifted(cosines: np.ndarray, products: np.ndarray, size: float) -> np.ndarray:
    """z >= 0 [T] with K z + products >= 0, and 0 where z > 0: what lifts a vector into the cone.

    products [T]: of the vector and the unit gradients; size: the lengths of what it is the sum of, for rounding.
    """
    z = _exchanged(cosines, products, size)
    return _grown(cosines, products, size) if z is None else z


def _exchanged(cosines: np.ndarray, products: np.ndarray, size: float) -> np.ndarray | None:
    """The same by exchanging all wrong tasks at once (Judice and Pires, Computers & Operations Research 1994): a few
    rounds, where one task at a time takes as many as there are tasks with z > 0. None where the wrong do not get fewer
    in PATIENCE rounds, and where z is LONG."""
    active, fewest, stale = products < 0, len(products) + 1, 0
    while True:
        z, there = np.zeros_like(products), np.flatnonzero(active)
        try:
            z[there] = np.linalg.solve(cosines[there[:, None], there], -products[there])
        except np.linalg.LinAlgError:
            return None
        slack = cosines @ z + products
        wrong = np.where(active, z <= 0, slack < -TOLERANCE * (size + z.sum()))
        count = np.count_nonzero(wrong)
        if count == 0:
            return z if z.sum() <= LONG * size else None
        fewest, stale = (count, 0) if count < fewest else (fewest, stale + 1)
        if stale > PATIENCE:
            return None
        active ^= wrong


def _grown(cosines: np.ndarray, products: np.ndarray, size: float) -> np.ndarray:
    """The same by Lawson and Hanson's active-set method (Solving Least Squares Problems, 1974, Chapter 23), on inner
    products. It ends, because |v| grows with every set of tasks that it accepts."""
    z = np.zeros(len(cosines))
    refused = np.zeros(len(cosines), bool)
    seen: set[bytes] = set()
    while True:
        slack = np.where((z > 0) | refused, 0.0, cosines @ z + products)
        t = int(slack.argmin())
        if slack[t] >= -TOLERANCE * (size + z.sum()):
            return z
        found = _with(cosines, products, z, t)
        support = (found > 0).tobytes()
        if found[t] > 0 and support not in seen:
            seen.add(support)
            z = found
            refused[:] = False
        else:  # dependent on the others to rounding: it can lift nothing
            refused[t] = True


def _with(cosines: np.ndarray, products: np.ndarray, z: np.ndarray, t: int) -> np.ndarray:
    """From z towards the solution on its tasks and t; those whose z gets to 0 are dropped."""
    z, active = z.copy(), z > 0
    active[t] = True
    while active.any():
        target = np.zeros_like(z)
        block = cosines[np.ix_(active, active)]
        try:
            target[active] = np.linalg.solve(block, -products[active])
        except np.linalg.LinAlgError:  # dependent to rounding: many solutions, of which the shortest
            target[active] = np.linalg.lstsq(block, -products[active])[0]
        falling = np.flatnonzero(active & (target <= 0))
        if not len(falling):
            return target
        reach = z[falling] / np.maximum(z[falling] - target[falling], np.finfo(float).tiny)
        z += reach.min() * (target - z)
        dropped = falling[reach.argmin()]
        active[dropped] = False
        z[~active] = 0.0
    return z
