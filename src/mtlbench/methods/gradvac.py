"""GradVac: gradient vaccine (Wang et al., ICLR 2021)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting, check_between, check_option

HIGHEST = 1 - 1e-8
"""A target above it counts as it: to be parallel to another gradient, one would have to be infinitely long."""

ZERO = 1e-7
"""A combination shorter than this share of what it adds up is zero: the Gramian has no more digits of its length."""


class GradVac(Weighting):
    """Each gradient is turned until its cosine with every other one is at least what it was on average so far.

    For task i, starting from p = g_i, and every other j in random order, with phi = cos(p, g_j) and the target psi_ij:
    if phi < psi then p <- p + |p| (psi sqrt(1 - phi^2) - phi sqrt(1 - psi^2)) / (|g_j| sqrt(1 - psi^2)) g_j, and then
    psi_ij <- (1 - beta) psi_ij + beta phi (Wang et al. 2021, Algorithm 1, Eqs. 2 and 3). The results are added.
    p stays a combination of the g_j, so coefficients and the Gramian suffice. The psi start at 0, so the first step is
    PCGrad's.

    beta: 0.01 is the paper's; public ports have 0.5. The paper lets gradients be cut into groups of parameters, each
        with targets of its own; here all shared parameters are one group, as in those ports' default.
    order: per_task draws a new order for each i (the paper), shared one for all; without a generator, the listed order.
    reduction: sum (the paper) or mean.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: T (sum) or 1 (mean) where all
    cosines reach their targets, more otherwise. Invariance to the losses' scales: none of the result; each turn and the
    targets have it. One task: its plain gradient. A zero gradient has no cosine: the pair is passed over and its target
    stays, and so it is where p was turned to zero (noted as "a gradient turned to zero"). A target above 1 - 1e-8,
    met after parallel gradients and with beta near 1 alone, counts as that (noted as "a target of parallel gradients").
    An absent task's targets stay as well. Raises ValueError for beta outside [0, 1] or an unknown option.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        beta: float = 0.01,
        order: str = "per_task",
        reduction: str = "sum",
    ):
        super().__init__(tasks, level)
        check_between(GradVac, "beta", beta, 0, 1)
        check_option(GradVac, "order", order, ("per_task", "shared"))
        check_option(GradVac, "reduction", reduction, ("sum", "mean"))
        self.beta, self.order, self.reduction = beta, order, reduction
        self.register_buffer("target", torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.float64))

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        at = torch.tensor(self.positions(tasks))
        count = len(losses)
        target = self.target[at[:, None], at].numpy()
        orders = self._orders(count, rng)
        rows = [self._turned(i, gramian.numpy(), target[i], orders[i]) for i in range(count)]
        self.target[at[:, None], at] = torch.from_numpy(target)
        total = torch.from_numpy(np.sum(rows, 0))
        return total / count if self.reduction == "mean" else total

    def _turned(self, i: int, inner: np.ndarray, target: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """The coefficients [T] of p for task i; moves its targets [T]."""
        lengths = np.sqrt(inner.diagonal()).tolist()
        weights = np.eye(len(inner))[i]
        products = inner[i].copy()  # of p and every original gradient
        length = total = lengths[i]  # |p|, and of all that it adds up
        for j in order:
            if j == i or lengths[j] == 0 or lengths[i] == 0:
                continue
            if length <= ZERO * total:
                self.note("a gradient turned to zero")
                break
            phi = min(1.0, max(-1.0, products.item(j) / length / lengths[j]))
            psi = target.item(j)
            target[j] = psi + self.beta * (phi - psi)
            if phi < psi:
                if psi > HIGHEST:
                    self.note("a target of parallel gradients")
                    psi = HIGHEST
                step = length / lengths[j] * (psi * math.sqrt((1 - phi**2) / (1 - psi**2)) - phi)
                weights[j] += step
                products += step * inner[j]
                length, total = math.sqrt(max(weights @ products, 0.0)), total + step * lengths[j]
        return weights

    def _orders(self, count: int, rng: torch.Generator | None) -> list[list[int]]:
        if rng is None:
            return [list(range(count))] * count
        if self.order == "shared":
            return [torch.randperm(count, generator=rng).tolist()] * count
        return [torch.randperm(count, generator=rng).tolist() for _ in range(count)]
