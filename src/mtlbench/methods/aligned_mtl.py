"""Aligned-MTL (Senushkin et al., CVPR 2023)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting, check_above, check_option


class AlignedMTL(Weighting):
    """The gradients are replaced by the nearest system of orthogonal ones of equal length, and these are added.

    With the Gramian's eigenvalues lambda and eigenvectors V: B = sqrt(sigma) V diag(lambda^-1/2) V', and the weights
    of the gradients are B p (Senushkin et al. 2023, Algorithm 1; Eq. 14).

    eigenvalue: sigma is the least eigenvalue (min, the paper), the median (of an even number the lower of the
        two in the middle) or the mean (rmse: the root of the mean square of the singular values), the latter two as in
        the authors' code, there named scale_mode.
    preferences: p, {task: number above 0}; null is 1 for each, as in the authors' code.
    Eigenvalues up to T eps times the largest are taken for zero, and left out, as in the authors' code, whose eps is
    that of float32.

    Level: parameter (the paper) or feature (its Aligned-MTL-UB). Touches shared parameters. Sum of weights: what the
    eigenvalues make it. Invariance to the losses' scales: none. One task: its plain gradient (times p). A zero
    gradient has the weight 0 and leaves the others as if alone; all zero: weights 0.
    Raises ValueError for an unknown eigenvalue and preferences that are not of the run's tasks.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        eigenvalue: str = "min",
        preferences: Mapping[str, float] | None = None,
    ):
        super().__init__(tasks, level)
        check_option(AlignedMTL, "eigenvalue", eigenvalue, ("min", "median", "rmse"))
        given = dict.fromkeys(self.tasks, 1.0) if preferences is None else dict(preferences)
        if set(given) != set(self.tasks):
            raise ValueError(
                f"preferences names {', '.join(given)}; the tasks are {', '.join(self.tasks)}. Name each once."
            )
        for value in given.values():
            check_above(AlignedMTL, "preferences", value, 0)
        self.sigma = {"min": np.min, "median": _lower_median, "rmse": np.mean}[eigenvalue]
        self.preferences = np.array([float(given[task]) for task in self.tasks])

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        inner = gramian.numpy()
        largest = np.diagonal(inner).max()
        if largest == 0:
            return torch.zeros_like(losses)
        values, vectors = np.linalg.eigh(inner / largest)
        there = values > len(values) * np.finfo(float).eps * values[-1]
        values, vectors = values[there], vectors[:, there]
        p = self.preferences[self.positions(tasks)]
        return torch.from_numpy(math.sqrt(self.sigma(values)) * (vectors @ ((vectors.T @ p) / np.sqrt(values))))


def _lower_median(values: np.ndarray) -> float:
    """Of an even number the lower of the two in the middle, as torch.median has it."""
    return float(np.sort(values)[(len(values) - 1) // 2])
