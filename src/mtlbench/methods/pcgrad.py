"""PCGrad: gradient surgery (Yu et al., NeurIPS 2020)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting, check_option


class PCGrad(Weighting):
    """Each gradient loses its components against the other tasks' gradients; the results are added.

    For each task i, starting from p = g_i: for every other task j, in random order, if p g_j' < 0 then
    p <- p - (p g_j' / |g_j|^2) g_j, where g_j is the original gradient (Yu et al. 2020, Algorithm 1; IMTL Eqs.
    31-33). p stays a combination of the g_j, so coefficients and the Gramian suffice.

    order: per_task draws a new order for each i (Algorithm 1); shared draws one for all of them (IMTL, Appendix
        C.3); code takes the tasks as they are listed, and among them i itself, as the authors' TensorFlow code
        does (it drops the result of its shuffle). The draws come from `rng`; without it, the listed order.
    reduction: sum (Algorithm 1 and the authors' code) or mean: the sum over T, as in a widely used PyTorch port.

    Level: parameter or feature. Touches shared parameters (the authors' code takes all variables into the inner
    products, heads too). Sum of weights: T (sum) or 1 (mean) without conflict, more with. Invariance to the
    losses' scales: none. One task: its plain gradient. A zero gradient takes part in no projection.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self, tasks: Sequence[str], level: Level | None = None, order: str = "per_task", reduction: str = "sum"
    ):
        super().__init__(tasks, level)
        check_option(PCGrad, "order", order, ("per_task", "shared", "code"))
        check_option(PCGrad, "reduction", reduction, ("sum", "mean"))
        self.order, self.reduction = order, reduction

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        count = len(losses)
        inner = gramian.numpy()
        weights = losses.new_zeros(count).numpy()
        for i, order in enumerate(self._orders(count, rng)):
            products = inner[i].copy()  # of p and every original gradient
            weights[i] += 1
            for j in order:
                if products[j] < 0 and (j != i or self.order == "code"):
                    step = products[j] / inner[j, j]
                    weights[j] -= step
                    products -= step * inner[j]
        return torch.from_numpy(weights / count if self.reduction == "mean" else weights)

    def _orders(self, count: int, rng: torch.Generator | None) -> list[list[int]]:
        if self.order == "code" or rng is None:
            return [list(range(count))] * count
        if self.order == "shared":
            return [torch.randperm(count, generator=rng).tolist()] * count
        return [torch.randperm(count, generator=rng).tolist() for _ in range(count)]
