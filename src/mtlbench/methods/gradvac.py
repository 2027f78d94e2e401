"""GradVac: gradient vaccine (Wang et al., ICLR 2021)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting, check_between, check_option


class GradVac(Weighting):
    """Each gradient is turned until its cosine with every other one is at least what it was on average so far.

    For task i, starting from p = g_i, and every other j in random order, with phi = cos(p, g_j) and the target psi_ij:
    if phi < psi then p <- p + |p| (psi sqrt(1 - phi^2) - phi sqrt(1 - psi^2)) / (|g_j| sqrt(1 - psi^2)) g_j, and then
    psi_ij <- (1 - beta) psi_ij + beta phi (Wang et al. 2021, Algorithm 1, Eqs. 2 and 3). The results are added.
    p stays a combination of the g_j, so coefficients and the Gramian suffice. The psi start at 0: the first step is
    PCGrad's.

    beta: 0.01 is the paper's; public ports have 0.5. The paper lets gradients be cut into groups of parameters; here
        all shared parameters are one group.
    order: per_task draws a new order for each i (the paper), shared one for all; without a generator, the listed order.
    reduction: sum (the paper) or mean.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: T (sum) or 1 (mean) where all
    cosines reach their targets, more otherwise. Invariance to the losses' scales: none (of the targets: all). One
    task: its plain gradient. A zero gradient, or a p turned to zero, has no cosine: the pair is passed over, its
    target stays. An absent task's targets stay as well. Raises ValueError for beta outside [0, 1] or an unknown option.
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
        at, count = self.positions(tasks), len(losses)
        inner = gramian.numpy()
        target = self.target[at][:, at].numpy()
        lengths = inner.diagonal() ** 0.5
        total = losses.new_zeros(count).numpy()
        for i, order in enumerate(self._orders(count, rng)):
            weights = losses.new_zeros(count).numpy()
            weights[i] = 1
            products, square = inner[i].copy(), inner[i, i]  # of p with every original gradient, and |p|^2
            for j in order:
                length = math.sqrt(max(square, 0.0))
                if j == i or lengths[j] == 0 or length <= 1e-15 * lengths[i]:
                    continue
                phi = min(1.0, max(-1.0, products[j] / (length * lengths[j])))
                psi = target[i, j]
                if phi < psi:
                    root = math.sqrt(1 - psi**2)
                    step = length * (psi * math.sqrt(1 - phi**2) - phi * root) / (lengths[j] * root)
                    square += step * (2 * products[j] + step * inner[j, j])
                    products += step * inner[j]
                    weights[j] += step
                target[i, j] = (1 - self.beta) * psi + self.beta * phi
            total += weights
        self.target[torch.tensor(at)[:, None], torch.tensor(at)] = torch.from_numpy(target)
        return torch.from_numpy(total / count if self.reduction == "mean" else total)

    def _orders(self, count: int, rng: torch.Generator | None) -> list[list[int]]:
        if rng is None:
            return [list(range(count))] * count
        if self.order == "shared":
            return [torch.randperm(count, generator=rng).tolist()] * count
        return [torch.randperm(count, generator=rng).tolist() for _ in range(count)]
