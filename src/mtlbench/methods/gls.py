"""GLS: the geometric loss strategy of MultiNet++ (Chennupati et al., CVPR Workshops 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlbench.by_task import positive
from mtlbench.weighting import Weighting


class GLS(Weighting):
    """The geometric mean of the losses, (prod_t L_t)^(1/T) (Chennupati et al. 2019).

    M_t = L_t sg(GLS / (T L_t)), GLS = exp(mean_t log L_t), sg: no gradient goes through. So sum_t M_t = GLS, and the
    gradient of the sum is that of GLS, but each M_t has its own task's gradient alone, and a gradient balance after it
    (a hybrid) has T gradients to balance instead of T times the same one. Computed in logarithms: products of many
    small or large losses neither vanish nor overflow. T counts the tasks present.

    A loss that is not above 0 has no logarithm: its task counts as absent in that step (M and weight 0, noted), instead
    of GLS = 0, which would stop all others. Level: loss. Touches everything. Sum of weights: GLS times the mean of
    1 / L_t: at least 1 (the arithmetic-geometric inequality), 1 where all losses are alike. Invariance to the losses'
    scales: the direction; k_t times each loss makes the step (prod_t k_t)^(1/T) times as long. One task: its plain
    gradient. A zero gradient changes nothing.
    """

    def __init__(self, tasks: Sequence[str]):
        super().__init__(tasks)

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        above = positive(self, losses, tasks)
        logs = losses.detach().where(above, 1.0).log()
        count = max(int(above.sum()), 1)
        # the deviations from the mean, in one exponential: neither GLS nor 1 / L is ever formed
        return losses * torch.where(above, (logs.sum() / count - logs).exp() / count, 0.0)
