"""Sum of the losses' logarithms."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlbench.by_task import positive
from mtlbench.weighting import Weighting


class Log(Weighting):
    """M_t = log L_t: scale-invariant linear scalarisation (SI in Navon et al., ICML 2022; DB-MTL's loss balance).

    The gradient of log L is g / L. It differs from `uncertainty_optimal` by the value of M alone, which a gradient
    balance that looks at losses sees, and from `gls` by a common factor of the step.

    A loss that is not above 0 has no logarithm: the task's M and weight are 0 in that step, noted; the others'
    are what they were. Level: loss. Touches everything. Sum of weights: sum_t 1 / L_t. Invariance to the losses'
    scales: the whole result. One task: 1 / L times its gradient. A zero gradient changes nothing.
    """

    def __init__(self, tasks: Sequence[str]):
        super().__init__(tasks)

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        above = positive(self, losses, tasks)
        return losses.where(above, 1.0).log()  # log 1 = 0, and where() lets no gradient through
